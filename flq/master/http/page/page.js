// The live page: asks /status and /history again and again, and shows what they say.
// Whatever came from a worker reaches the page through textContent only.

import { Chart } from "./chart.js";

const POLL_MS = 2000;
const POLL_AWAY_MS = 5000;
const TIMEOUT_MS = 10000;
const RETESTED = 20; // a round is tested after it closed: so many of the newest are asked for again

const STRINGS = {
  en: {
    other_language: "中文",
    accuracy: "Accuracy", loss: "Loss", eta: "Time left", connected: "Workers connected", pending: "Updates pending",
    bits_up: "Bits up, workers to master", bits_down: "Bits down, master to workers", workers: "Workers",
    round: "Round", test: "test", training: "training", no_rounds: "No round was tested yet",
    float32: "float32", nominal: "nominal", payload: "payload", wire: "wire", less: (factor) => `${factor}× less`,
    worker: "Worker", state: "State", last_seen: "Last seen", skipped: "Skipped", uploads: "Uploads", missing: "Missing", flagged: "Flagged", up: "Up", down: "Down",
    device: "Device", cohort: "Cohort", turn: (cohort, all) => `cohort ${cohort} of 0 to ${all - 1}`,
    ago: (time) => `${time} ago`, never: "never", no_workers: "No worker has registered yet",
    away: (time) => `The master does not answer. Trying again. Last answer: ${time}.`,
    about: (status) => `${status.dataset}, ${status.model}, ${status.mode} (${status.run_id})`,
    paused: "Paused", error: (text) => `Error: ${text}`,
    seconds: (s) => `${s} s`, minutes: (min, s) => `${min} min ${s} s`, hours: (h, min) => `${h} h ${min} min`,
    phases: { WAITING: "Waiting for workers", BIDDING: "Workers are training", UPLOADING: "Workers are uploading",
      AGGREGATING: "Aggregating", BLOCKED: "Blocked", FINISHED: "Finished", STOPPED: "Stopped" },
    states: {},
  },
  zh: {
    other_language: "English",
    accuracy: "准确率", loss: "损失", eta: "剩余时间", connected: "已连接的工作节点", pending: "待处理的更新",
    bits_up: "上行比特（工作节点到主节点）", bits_down: "下行比特（主节点到工作节点）", workers: "工作节点",
    round: "轮次", test: "测试", training: "训练", no_rounds: "还没有测试过的轮次",
    float32: "float32", nominal: "标称", payload: "载荷", wire: "线路", less: (factor) => `压缩 ${factor} 倍`,
    worker: "节点", state: "状态", last_seen: "最近联系", skipped: "跳过", uploads: "上传", missing: "缺席", flagged: "被标记", up: "上行", down: "下行", device: "设备",
    cohort: "分组", turn: (cohort, all) => `第 ${cohort} 组（0 至 ${all - 1}）`,
    ago: (time) => `${time}前`, never: "从未", no_workers: "还没有工作节点注册",
    away: (time) => `主节点没有响应，正在重试。上次响应：${time}。`,
    about: (status) => `${status.dataset}，${status.model}，${status.mode}（${status.run_id}）`,
    paused: "已暂停", error: (text) => `错误：${text}`,
    seconds: (s) => `${s} 秒`, minutes: (min, s) => `${min} 分 ${s} 秒`, hours: (h, min) => `${h} 小时 ${min} 分`,
    phases: { WAITING: "等待工作节点", BIDDING: "工作节点训练中", UPLOADING: "工作节点上传中",
      AGGREGATING: "聚合中", BLOCKED: "受阻", FINISHED: "已结束", STOPPED: "已停止" },
    states: { waiting: "等待", training: "训练中", uploading: "上传中", granted: "已获准", refused: "未选中", skipped: "跳过",
      done: "完成", away: "离线", left_out: "不再等待", removed: "已移除" },
  },
};

const byId = (id) => document.getElementById(id);
const charts = { accuracy: new Chart(byId("accuracy-chart"), percent), loss: new Chart(byId("loss-chart"), decimal) };

let language = rememberedLanguage();
let status = null; // the last answer of /status
let history = []; // round records by round number
let heardAt = null; // when the last answer came, performance.now()
let away = false;

byId("language").addEventListener("click", () => {
  language = language === "en" ? "zh" : "en";
  rememberLanguage();
  render();
});
render();
poll();

async function poll() {
  try {
    const answer = await ask("status");
    if (status === null || answer.run_id !== status.run_id || answer.current_round < history.length) {
      history = [];
    }
    status = answer;
    await askHistory();
    heardAt = performance.now();
    away = false;
  } catch (error) {
    console.warn(`no answer: ${error.message}`);
    away = true;
  }
  setTimeout(poll, away ? POLL_AWAY_MS : POLL_MS);
  render();
}

async function ask(path) {
  const response = await fetch(path, { cache: "no-store", signal: AbortSignal.timeout(TIMEOUT_MS) });
  if (!response.ok) {
    throw new Error(`${path}: HTTP ${response.status}`);
  }
  return response.json();
}

async function askHistory() {
  const lastTested = history.findLastIndex((record) => record.accuracy !== null);
  const since = Math.max(lastTested + 1, history.length - RETESTED);
  for (const record of (await ask(`history?since=${since}`)).rounds) {
    history[record.round] = record;
  }
}

function rememberedLanguage() {
  try {
    return localStorage.getItem("flq-language") === "zh" ? "zh" : "en";
  } catch {
    return "en"; // storage is switched off
  }
}

function rememberLanguage() {
  try {
    localStorage.setItem("flq-language", language);
  } catch {
    // storage is switched off: the choice holds until the page is left
  }
}

function render() {
  const words = STRINGS[language];
  document.documentElement.lang = language === "zh" ? "zh-CN" : "en";
  byId("language").textContent = words.other_language;
  for (const node of document.querySelectorAll("[data-text]")) {
    node.textContent = words[node.dataset.text];
  }
  byId("away").hidden = !away;
  byId("away").textContent = away ? words.away(lastHeard(words)) : "";
  renderCharts(words);
  if (status !== null) {
    renderOverview(words);
    renderBits(words, "up");
    renderBits(words, "down");
    renderWorkers(words);
  }
}

function lastHeard(words) {
  return heardAt === null ? words.never : words.ago(duration(words, (performance.now() - heardAt) / 1000));
}

function renderOverview(words) {
  const { current_round: done, max_rounds: all } = status;
  document.title = `${done}/${all} FLQ`;
  byId("run").textContent = words.about(status);
  byId("error").hidden = !status.error;
  byId("error").textContent = status.error ? words.error(status.error) : "";
  const phase = status.stopped ? "STOPPED" : status.phase;
  byId("phase").textContent = status.paused ? words.paused : words.phases[phase] ?? phase;
  const turn = status.cohorts > 1 && phase !== "FINISHED" && phase !== "STOPPED" ? `, ${words.turn(status.cohort, status.cohorts)}` : "";
  byId("round").textContent = `${words.round} ${done} / ${all}${turn}`;
  byId("progress").max = all;
  byId("progress").value = done;
  byId("accuracy").textContent = percent(status.accuracy);
  byId("loss").textContent = decimal(status.loss);
  byId("eta").textContent = status.eta_s === null ? "–" : duration(words, status.eta_s);
  byId("connected").textContent = `${status.connected_workers} / ${status.total_workers}`;
  byId("pending").textContent = String(status.pending_updates);
}

function renderCharts(words) {
  const measured = (key) => history.filter((record) => record[key] !== null).map((record) => [record.round, record[key]]);
  const curve = (name, key) => ({ name, points: measured(key) });
  const chartWords = { round: words.round, empty: words.no_rounds };
  charts.accuracy.show(words.accuracy, [curve(words.test, "accuracy")], chartWords);
  charts.loss.show(words.loss, [curve(words.test, "loss"), curve(words.training, "train_loss")], chartWords);
}

function renderBits(words, direction) {
  const bits = status.bits[direction];
  const cells = [];
  for (const kind of ["float32", "nominal", "payload", "wire"].filter((name) => bits[name] !== null)) {
    const number = cell("span", bitsText(bits[kind]), "number");
    number.title = `${bits[kind]} bit = ${bits[kind] / 8} B`;
    const factor = kind !== "float32" && bits[kind] > 0 && bits.float32 > 0 ? words.less(ratio(bits.float32 / bits[kind])) : "";
    const share = bits[kind] / Math.max(bits.float32, bits[kind], 1);
    cells.push(cell("span", words[kind], "quiet"), bar(share, kind), number, cell("span", factor, "number quiet"));
  }
  byId(`bits-${direction}`).replaceChildren(...cells);
}

function renderWorkers(words) {
  const columns = [
    ["worker", (id) => id, ""],
    ...(status.cohorts > 1 ? [["cohort", (id, worker) => integer(worker.cohort), "number"]] : []),
    ["state", (id, worker) => words.states[worker.state] ?? worker.state, ""],
    ["last_seen", (id, worker) => (worker.last_seen_s === null ? words.never : words.ago(duration(words, worker.last_seen_s))), "number"],
    ["round", (id, worker) => integer(worker.round), "number"],
    ["loss", (id, worker) => decimal(worker.loss), "number"],
    ["skipped", (id, worker) => integer(worker.skipped), "number"],
    ["uploads", (id, worker) => integer(worker.uploads), "number"],
    ["missing", (id, worker) => integer(worker.missing), "number"],
    ...(Object.values(status.worker_status).some((worker) => worker.flagged) ? [["flagged", (id, worker) => flagText(worker), ""]] : []),
    ["up", (id, worker) => bitsText(worker.bits_up), "number"],
    ["down", (id, worker) => bitsText(worker.bits_down), "number"],
    ["device", (id, worker) => deviceText(worker.device), ""],
  ];
  byId("columns").replaceChildren(...columns.map(([name, , kind]) => cell("th", words[name], kind)));
  const workers = Object.entries(status.worker_status).sort(([a], [b]) => Number(a) - Number(b));
  const rows = workers.map(([id, worker]) => {
    const row = document.createElement("tr");
    for (const [name, text, kind] of columns) {
      const data = cell("td", text(id, worker), kind);
      data.dataset.name = words[name];
      row.append(data);
    }
    return row;
  });
  byId("workers").replaceChildren(...(rows.length ? rows : [emptyRow(words.no_workers, columns.length)]));
}

function flagText(worker) {
  return worker.flagged ? `${integer(worker.flagged)} (${worker.flag.reason})` : "";
}

function emptyRow(text, width) {
  const row = document.createElement("tr");
  const data = cell("td", text, "");
  data.colSpan = width;
  row.append(data);
  return row;
}

function cell(tag, text, kind) {
  const node = document.createElement(tag);
  node.textContent = text;
  node.className = kind;
  return node;
}

function bar(share, kind) {
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  const rect = document.createElementNS("http://www.w3.org/2000/svg", "rect");
  rect.setAttribute("width", `${(100 * share).toFixed(2)}%`);
  rect.setAttribute("height", "100%");
  rect.setAttribute("class", kind);
  svg.setAttribute("aria-hidden", "true");
  svg.append(rect);
  return svg;
}

function percent(value) {
  return value === null ? "–" : `${Number((100 * value).toFixed(2))} %`;
}

function decimal(value) {
  return value === null ? "–" : Number(value.toPrecision(4)).toString();
}

function integer(value) {
  return value === null ? "–" : String(value);
}

function ratio(value) {
  return value < 99.95 ? value.toFixed(1) : value.toFixed(0);
}

// 12345678 -> 12.3 Mbit; 1 Mbit is 10^6 bits.
function bitsText(bits) {
  if (bits < 1000) {
    return `${bits} bit`;
  }
  const power = Math.min(5, Math.floor(Math.log10(bits * 1.0005) / 3));
  return `${(bits / 1000 ** power).toPrecision(3)} ${" kMGTP"[power]}bit`;
}

function duration(words, seconds) {
  const whole = Math.round(seconds);
  if (whole < 60) {
    return words.seconds(whole);
  }
  const minutes = Math.floor(whole / 60);
  return whole < 3600 ? words.minutes(minutes, whole % 60) : words.hours(Math.floor(minutes / 60), minutes % 60);
}

function deviceText(device) {
  const text = (value) => (value !== null && typeof value === "object" ? JSON.stringify(value) : String(value));
  return Object.entries(device ?? {}).map(([name, value]) => `${name}: ${text(value)}`).join(", ");
}
