// The live page: waits for news of /status, then asks for the rounds and events that are new, and shows all of it.

import { Chart } from "./charts.js";
import { changeKey, showConfiguration } from "./configuration.js";
import { ask, byId, element } from "./dom.js";
import { bitsText, decimal, duration, exactDuration, hostOf, integer, number, percent, ratio, wholePercent } from "./format.js";
import { History } from "./history.js";
import * as operator from "./operator.js";
import { firstLanguage, rememberLanguage, WORDS } from "./words.js";
import { Workers } from "./workers.js";

const WAIT_S = 5; // for news: what is none, such as an upload that came, is shown by then
const PAUSE_MS = 1000; // between two questions
const AFTER_NEWS_MS = 2000; // where something happens all the time, so that many viewers cost the run little
const AWAY_MS = 3000;
const EVENTS_MS = 5000; // between two questions for events

const charts = Object.fromEntries(["bits", "accuracy", "loss", "answers", "time"].map((name) => [name, new Chart(byId(`${name}-chart`), { byBits: name === "bits" })]));
const workers = new Workers((id) => act("remove", () => operator.request("POST", `workers/${id}/remove`), WORDS[language].sure_remove(id), WORDS[language].remove));
const history = new History();

let language = firstLanguage();
let status = null; // the last answer of /status
let heardAt = null; // when it came, performance.now()
let away = false;
let eventsAt = 0; // when they were asked for last
let eventsDue = 0; // performance.now() from which on events are asked for; Infinity while nothing happens
let stopped = false; // this page's reader stopped the run: its master ends
let said = () => ""; // what became of the operator's last request, in the page's language

start();
follow();
setInterval(() => status !== null && !document.hidden && !away && renderAges(), 1000);

function start() {
  byId("language").addEventListener("click", () => {
    language = language === "en" ? "zh" : "en";
    rememberLanguage(language);
    render();
    showConfiguration(WORDS[language]);
  });
  byId("pause").addEventListener("click", () => (status?.paused ? act("resume", () => operator.request("POST", "resume")) : act("pause", () => operator.request("POST", "pause"))));
  byId("stop").addEventListener("click", () => act("stop", () => operator.request("POST", "stop"), WORDS[language].sure_stop, WORDS[language].stop));
  byId("change").addEventListener("click", () => act("change", changeKey));
  byId("go-on").addEventListener("click", goOnWithout);
  byId("unlock").addEventListener("click", () => act("unlock", operator.unlock));
  byId("lock").addEventListener("click", () => {
    operator.forget();
    said = () => "";
    render();
  });
  byId("configuration-section").addEventListener("toggle", () => showConfiguration(WORDS[language]));
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", render);
  render();
}

async function follow() {
  for (;;) {
    let pause = PAUSE_MS;
    const knewStop = stopped; // before the question: an answer of before the stop may still come
    try {
      const answer = await ask(`status?seen=${encodeURIComponent(status?.news ?? "")}&wait=${status === null || away ? 0 : WAIT_S}`);
      const other = status === null || answer.run_id !== status.run_id;
      const changed = other || away || answer.news !== status.news;
      if (other) {
        history.forget();
      }
      if (changed) {
        pause = AFTER_NEWS_MS;
        await history.follow(answer, ask);
        eventsDue = other || away ? 0 : Math.min(eventsDue, eventsAt + EVENTS_MS);
      }
      const withEvents = performance.now() >= eventsDue;
      if (withEvents) {
        const changes = history.changes;
        await history.followEvents(ask);
        eventsAt = performance.now();
        eventsDue = Infinity;
        if (changes !== history.changes) {
          showConfiguration(WORDS[language]);
        }
      }
      status = answer;
      if (knewStop && !isOver()) {
        stopped = false; // another master goes on with the run
      }
      heardAt = performance.now();
      away = false;
      render(changed || withEvents);
    } catch (error) {
      console.warn(`no answer: ${error.message}`);
      away = true;
      render(false);
    }
    await new Promise((resolve) => setTimeout(resolve, away ? AWAY_MS : pause));
    if (document.hidden) {
      await new Promise((resolve) => document.addEventListener("visibilitychange", resolve, { once: true }));
    }
  }
}

// --- what is shown

function render(withCharts = true) {
  const words = WORDS[language];
  document.documentElement.lang = language === "zh" ? "zh-CN" : "en";
  byId("language").textContent = words.other_language;
  for (const node of document.querySelectorAll("[data-text]")) {
    node.textContent = words[node.dataset.text];
  }
  byId("said").textContent = said(words);
  renderCaller(words);
  notice("away", away ? (stopped || isOver() ? words.gone : words.away)(lastHeard(words)) : "");
  document.body.classList.toggle("stale", away);
  byId("help").replaceChildren(...words.meanings.flatMap(([name, meaning]) => [element("dt", name), element("dd", meaning)]));
  if (withCharts !== false) {
    renderCharts(words);
    renderEvents(words);
  }
  if (status !== null) {
    renderOverview(words);
    renderBits(words, "up");
    renderBits(words, "down");
    renderAges();
  } else {
    byId("pause").textContent = words.pause;
  }
}

// Without an operator's token there is nothing to press.
function renderCaller(words) {
  const caller = operator.whoIs();
  byId("unlock").hidden = caller !== null;
  byId("lock").hidden = caller === null;
  byId("caller").hidden = caller === null;
  byId("caller").textContent = caller === null ? "" : words.caller(caller);
  for (const id of ["pause", "stop", "change"]) {
    byId(id).hidden = !operator.isOperator();
  }
}

function renderAges() {
  const words = WORDS[language];
  const age = away ? 0 : (performance.now() - heardAt) / 1000;
  workers.show(words, status, age, operator.isOperator());
  renderStall(words, age);
  byId("eta").textContent = duration(words, number(status.eta_s) === null ? null : Math.max(0, status.eta_s - (isOver() ? 0 : age)));
}

function lastHeard(words) {
  return heardAt === null ? words.never : words.ago(duration(words, (performance.now() - heardAt) / 1000));
}

function isOver() {
  return status?.phase === "FINISHED";
}

// A rule against bad workers made no step in the last round.
function hasTooFew() {
  const seen = number(status.updates_seen);
  return seen !== null && seen < status.updates_needed;
}

function notice(id, text) {
  byId(id).hidden = !text;
  if (byId(id).textContent !== text) { // a screen reader reads it again where it is set
    byId(id).textContent = text;
  }
}

function renderOverview(words) {
  const { current_round: done, max_rounds: all } = status;
  document.title = `${status.stall ? "⚠ " : ""}${done}/${all} FLQ`;
  byId("run").textContent = words.about(status);
  notice("error", status.error ? words.error(status.error) : "");
  notice("too-few", hasTooFew() ? words.too_few(status.aggregation, status.updates_needed, status.updates_seen) + (isOver() ? "" : words.until_more) : "");
  const phase = status.stopped ? "STOPPED" : status.phase;
  byId("phase").textContent = status.paused ? words.paused : words.phases[phase] ?? phase;
  const turn = status.cohorts > 1 && !isOver() ? ` · ${words.turn(status.cohort + 1, status.cohorts)}` : "";
  byId("round").textContent = words.of_rounds(done, all) + turn;
  byId("progress").max = number(all) > 0 ? all : 1;
  byId("progress").value = Math.max(0, number(done) ?? 0);
  byId("accuracy").textContent = percent(status.accuracy);
  byId("loss").textContent = decimal(status.loss);
  const lost = Object.values(status.worker_status).filter(({ state }) => state === "lost").length;
  byId("connected").textContent = `${status.connected_workers - lost} / ${status.total_workers}`;
  byId("pending").textContent = integer(status.pending_updates);
  const told = status.pending_tests ? words.testing : (status.stopped ? words.was_stopped : words.over)(done, percent(status.accuracy));
  notice("over", isOver() ? told : "");
  byId("pause").textContent = status.paused ? words.resume : words.pause;
  for (const id of ["pause", "stop", "change"]) {
    byId(id).disabled = away || (isOver() && id !== "stop");
  }
}

function renderStall(words, age) {
  const { stall } = status;
  byId("stall").hidden = !stall;
  if (!stall) {
    return;
  }
  const name = (id) => {
    const { device, state, last_seen_s: seen } = status.worker_status[id] ?? {};
    const why = state === "lost" ? words.heard(duration(words, seen + age)) : state === "slow" ? words.slow : words.not_connected;
    return `${id} (${[hostOf(device), why].filter(Boolean).join(words.comma)})`;
  };
  const end = stall.goes_on_in_s !== null ? words.goes_on(duration(words, Math.max(0, stall.goes_on_in_s - age)))
    : canGoOn(stall) ? "" : words.start_them;
  const text = [words.waiting_for(named(words, stall.workers, name)), end].filter(Boolean).join(" ");
  if (byId("stall-text").textContent !== text) {
    byId("stall-text").textContent = text;
  }
  byId("go-on").textContent = stall.workers.length === 1 ? words.go_on_without(stall.workers[0]) : words.go_on;
  byId("go-on").hidden = !canGoOn(stall);
  byId("go-on").disabled = away || !operator.isOperator(); // not hidden: it says what an operator can do
}

function canGoOn(stall) {
  return stall.remove.length > 0 || Object.keys(stall.change).length > 0;
}

// worker 2 (nano-b, last heard 1 min ago), workers 1 and 2
function named(words, ids, name) {
  const shown = ids.slice(0, 4).map(name);
  if (ids.length > shown.length) {
    shown.push(words.more(ids.length - shown.length));
  }
  const last = shown.pop();
  const list = shown.length ? shown.join(words.comma) + words.and + last : last;
  return `${ids.length === 1 ? words.one_worker : words.many_workers} ${list}`;
}

function renderCharts(words) {
  const x = history.counts;
  const lines = history.events.map(({ round }) => round + 1);
  const shared = { label: words.round, x, lines, empty: words.no_rounds };
  const line = (label, color, values, more) => ({ label, color, values, ...more });
  charts.accuracy.show({ ...shared, title: words.accuracy_by_round, format: percent, tickFormat: wholePercent, series: [line(words.test, "--first", history.column("accuracy"))] });
  charts.loss.show({ ...shared, title: words.loss, format: decimal,
    series: [line(words.test, "--first", history.column("loss")), line(words.training, "--second", history.column("train_loss"), { dash: [6, 4] })] });
  const seconds = (value) => exactDuration(words, value);
  charts.time.show({ ...shared, title: words.round_time, format: seconds, empty: words.no_round, series: [line(words.time, "--first", history.column("round_time_s"), { stepped: true })] });
  renderAnswers(words, { ...shared, empty: words.no_round });
  const byBits = history.accuracyByBits(status?.bits ?? {});
  charts.bits.show({ label: words.bits, title: words.accuracy_by_bits, x: byBits.x, empty: words.no_rounds, format: percent, tickFormat: wholePercent,
    series: [line(words.sent, "--first", byBits.payload), line(words.as_float32, "--second", byBits.float32, { dash: [6, 4] })] });
}

// One upon the other: what is drawn first is behind.
function renderAnswers(words, shared) {
  const answers = history.answers();
  const sums = new Array(history.rows.length).fill(0);
  const series = ["selected", "skipped", "refused", "missing"].map((name) => ({
    label: words[name], color: `--${name}`, fill: true, stepped: true, shown: answers[name], values: answers[name].map((count, index) => (sums[index] += count)),
  }));
  charts.answers.show({ ...shared, title: words.answers, format: integer, series: series.reverse() });
}

function renderEvents(words) {
  byId("events-count").textContent = history.events.length ? `(${history.events.length})` : "";
  const newest = history.events.slice(-200).reverse();
  byId("events").replaceChildren(...newest.map((event) => element("li", `${words.round} ${event.round + 1}: ${words.event(event) ?? event.event}${event.by ? words.by(event.by) : ""}`)));
}

function renderBits(words, direction) {
  const bits = status.bits[direction];
  const cells = [];
  for (const kind of ["float32", "nominal", "payload", "wire"].filter((name) => number(bits[name]) !== null)) {
    const shown = element("span", bitsText(bits[kind]), "number");
    shown.title = `${bits[kind]} bit = ${bits[kind] / 8} B`;
    const factor = kind !== "float32" && bits[kind] > 0 && bits.float32 > 0 ? words.less(ratio(bits.float32 / bits[kind])) : "";
    const share = Math.max(0, bits[kind]) / Math.max(bits.float32, bits[kind], 1);
    cells.push(element("span", words[kind], "quiet"), bar(share, kind), shown, element("span", factor, "number quiet"));
  }
  byId(`bits-${direction}`).replaceChildren(...cells);
}

function bar(share, kind) {
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  const rect = svg.appendChild(document.createElementNS("http://www.w3.org/2000/svg", "rect"));
  rect.setAttribute("width", `${(100 * share).toFixed(2)}%`);
  rect.setAttribute("height", "100%");
  rect.setAttribute("class", kind);
  svg.setAttribute("aria-hidden", "true");
  return svg;
}

// --- what an operator does

// sure: what is asked before, where the act is for good.
async function act(name, request, sure = "", yes = "") {
  if (sure && !await operator.askIfSure(sure, yes)) {
    return;
  }
  tell((words) => words.asking);
  try {
    const answer = await request();
    stopped ||= name === "stop" && answer !== null;
    tell(answer === null ? () => "" : (words) => outcome(words, name, answer));
  } catch (error) {
    tell((words) => (error instanceof operator.Refused ? words.failed(error.message) : words.unreachable));
  }
}

function tell(text) {
  said = text;
  render(false);
}

function outcome(words, name, answer) {
  if (name === "stop") {
    return (answer.results_saved ? words.did.stop : words.did.unsaved)(answer.results);
  }
  if (name === "change") {
    const changed = Object.entries(answer.changed).map(([key, { old, new: value }]) => `${key}: ${JSON.stringify(old)} → ${JSON.stringify(value)}`);
    return changed.length ? words.did.change(changed.join(words.comma), answer.effective_round + 1) : words.did.unchanged;
  }
  if (name === "unlock") {
    showConfiguration(words);
    return "";
  }
  return name === "remove" ? words.did.remove(answer.worker) : words.did[name];
}

function goOnWithout() {
  const words = WORDS[language];
  const { remove, change } = status.stall;
  if (Object.keys(change).length) {
    const keys = Object.entries(change).map(([key, value]) => `${key}=${value}`).join(words.comma);
    return act("change", () => operator.request("PATCH", "config", change), words.sure_lower(keys), words.ok);
  }
  const all = async () => {
    let last = null;
    for (const worker of remove) {
      last = await operator.request("POST", `workers/${worker}/remove`);
      if (last === null) {
        break;
      }
    }
    return last;
  };
  return act("remove", all, words.sure_go_on(named(words, remove, String)), words.remove);
}
