// Every word of the page, in the browser's language where that is one of these, and in English otherwise.

export const WORDS = {
  en: {
    other_language: "中文",
    accuracy: "Accuracy", loss: "Loss", eta: "Time left", connected: "Workers connected", pending: "Updates received",
    accuracy_by_bits: "Accuracy by bits sent, up and down", accuracy_by_round: "Accuracy by round", answers: "Answers in each round",
    round_time: "Duration of each round", bits_up: "Bits up, workers to master", bits_down: "Bits down, master to workers",
    workers: "Workers", events: "Events", configuration: "Configuration", help: "What the words mean",
    round: "Round", test: "test", training: "training", no_rounds: "No round was tested yet", no_round: "No round has closed yet",
    sent: "as sent", as_float32: "as float32", bits: "Bits", time: "time",
    float32: "float32", nominal: "nominal", payload: "payload", wire: "wire", less: (factor) => `${factor}× less`,
    worker: "Worker", state: "State", last_seen: "Last seen", loss_of: "Loss", uploads: "Uploads", missing: "Missing", skipped: "Skipped",
    refused: "Refused", selected: "Selected", up: "Up", down: "Down", device: "Device", cohort: "Cohort", action: "",
    of_rounds: (done, all) => `Round ${done} / ${all}`, turn: (cohort, all) => `cohort ${cohort} of ${all}`,
    ago: (time) => `${time} ago`, never: "never", no_workers: "No worker has registered yet", all_states: "all",
    away: (time) => `The master does not answer. Trying again. Last answer: ${time}.`,
    gone: (time) => `The master has ended. What you see is its last answer, ${time}.`,
    about: (status) => `${status.dataset}, ${status.model}, ${status.mode} (${status.run_id})`,
    over: (rounds, accuracy) => `The run has finished: ${rounds} rounds, accuracy ${accuracy}.`,
    was_stopped: (rounds, accuracy) => `The run was stopped after ${rounds} rounds: accuracy ${accuracy}.`,
    testing: "The run has all its rounds. The last model is being tested.",
    paused: "Paused", error: (text) => `Error: ${text}`,
    too_few: (rule, needed, seen) => `The last round left the model as it was: ${rule} needs the updates of ${needed} workers and had those of ${seen}.`,
    until_more: " It goes on by itself when more come, or with a smaller flq_algorithm.bad_workers.",
    waiting_for: (names) => `Waiting for ${names}.`, one_worker: "worker", many_workers: "workers", and: " and ", comma: ", ",
    heard: (time) => `last heard ${time} ago`, not_connected: "not connected", slow: "slower than usual", more: (count) => `${count} more`,
    goes_on: (time) => `The round goes on without them in ${time} at the latest.`, start_them: "Nobody else is there to continue with: start them.",
    go_on: "Continue without them", go_on_without: (worker) => `Continue without worker ${worker}`, sure_go_on: (names) => `Continue without ${names}? Removed workers cannot come back into this run.`,
    sure_lower: (keys) => `Set ${keys} and continue? Workers that come back take part again.`,
    pause: "Pause", resume: "Resume", stop: "Stop", change_key: "Change a key", remove: "Remove", lock: "Forget the token",
    caller: ({ role, name }) => (role === "viewer" ? `viewer ${name}: may read and change nothing` : `operator ${name}`), by: (name) => ` (by ${name})`,
    sure_stop: "Stop the run for good? The master closes the open round, writes the results and ends.",
    sure_remove: (worker) => `Remove worker ${worker} for good? It cannot come back into this run.`,
    token_title: "An operator's or a viewer's token", token_why: "The operator's is the line in ~/.flq/token on the master's machine; a viewer's shows more and changes nothing. This page keeps it until it is closed or reloaded, and stores it nowhere.",
    token_wrong: "The master does not know this token.", cancel: "Cancel", ok: "OK", key: "Key", value: "Value (JSON)",
    asking: "Asking the master …", failed: (text) => `Refused: ${text}`, unreachable: "The master did not answer.",
    did: { pause: "Paused.", resume: "Resumed.", stop: (folder) => `Stopped. The results are in ${folder} on the master.`,
      unsaved: (folder) => `Stopped. The results could not be written; the rounds are in ${folder} on the master.`,
      change: (changed, round) => `${changed}, from round ${round} on.`, unchanged: "The value was the same.", remove: (worker) => `Worker ${worker} was removed.` },
    config_locked: "On a network the configuration is shown with a viewer's or an operator's token only.", unlock: "Enter a token",
    link_csv: "History as CSV", link_status: "Status as JSON", link_metrics: "Metrics for Prometheus", link_api: "Description of the API (OpenAPI)",
    shown_from: (round) => `from round ${round} on`,
    seconds: (s) => `${s} s`, minutes: (min, s) => `${min} min ${s} s`, hours: (h, min) => `${h} h ${min} min`,
    phases: { WAITING: "Waiting for workers", BIDDING: "Workers are training", UPLOADING: "Workers are uploading",
      AGGREGATING: "Aggregating", BLOCKED: "Blocked: the master cannot write its disk", FINISHED: "Finished", STOPPED: "Stopped" },
    states: { left_out: "left out" },
    event: (event) => ({ join: `worker ${event.worker} joined`, leave: `worker ${event.worker} left`, remove: `worker ${event.worker} was removed`,
      reset: `worker ${event.worker} starts again from an empty reference`, absent: `worker ${event.worker} was absent for too long: it left the average`,
      samples: `worker ${event.worker} has another number of samples`, config: `${event.key} was changed`, pause: "paused", resume: "resumed",
      flagged: `worker ${event.worker} is flagged: its answer was beyond a bound and was not taken`,
      expelled: `worker ${event.worker} was flagged too often: it left the average`,
      overweight: `worker ${event.worker} has too large a part of all samples: it left the average`,
      rollback: "the run went back to an earlier round", stop: "the run was told to stop" })[event.event],
    meanings: [
      ["training, uploading, waiting", "the round waits for this worker, or it waits for the others"],
      ["lost", "nothing was heard of this worker for longer than it should be silent: it may be dead, or its network is down"],
      ["slow", "it is there, and takes more than twice as long as the slowest worker of the last rounds"],
      ["left out, away, removed", "it let two deadlines pass; it left or was given up; the operator took it out"],
      ["skipped, refused, missing", "it had too little news to send; its bid was not selected; no usable answer came"],
      ["nominal, payload, wire", "bits as the papers count; the bodies of messages; every byte at the socket, headers and polls included"],
      ["as float32", "what the same rounds would have sent without compression"],
    ],
  },
  zh: {
    other_language: "English",
    accuracy: "准确率", loss: "损失", eta: "剩余时间", connected: "已连接的工作节点", pending: "已收到的更新",
    accuracy_by_bits: "准确率与通信量（上行加下行）", accuracy_by_round: "各轮准确率", answers: "各轮应答情况",
    round_time: "各轮用时", bits_up: "上行比特（工作节点到主节点）", bits_down: "下行比特（主节点到工作节点）",
    workers: "工作节点", events: "事件", configuration: "配置", help: "名词说明",
    round: "轮次", test: "测试", training: "训练", no_rounds: "还没有测试过的轮次", no_round: "还没有完成的轮次",
    sent: "实际发送", as_float32: "按 float32 计", bits: "比特", time: "用时",
    float32: "float32", nominal: "标称", payload: "载荷", wire: "线路", less: (factor) => `压缩 ${factor} 倍`,
    worker: "节点", state: "状态", last_seen: "最近联系", loss_of: "损失", uploads: "上传", missing: "缺席", skipped: "跳过",
    refused: "未选中", selected: "选中", up: "上行", down: "下行", device: "设备", cohort: "分组", action: "",
    of_rounds: (done, all) => `第 ${done} / ${all} 轮`, turn: (cohort, all) => `第 ${cohort} 组（共 ${all} 组）`,
    ago: (time) => `${time}前`, never: "从未", no_workers: "还没有工作节点注册", all_states: "全部",
    away: (time) => `主节点没有响应，正在重试。上次响应：${time}。`,
    gone: (time) => `主节点已退出。当前显示的是它最后一次（${time}）的响应。`,
    about: (status) => `${status.dataset}，${status.model}，${status.mode}（${status.run_id}）`,
    over: (rounds, accuracy) => `训练已完成：共 ${rounds} 轮，准确率 ${accuracy}。`,
    was_stopped: (rounds, accuracy) => `训练在第 ${rounds} 轮后被停止：准确率 ${accuracy}。`,
    testing: "所有轮次已完成，正在测试最后的模型。",
    paused: "已暂停", error: (text) => `错误：${text}`,
    too_few: (rule, needed, seen) => `上一轮没有改变模型：${rule} 需要 ${needed} 个节点的更新，只有 ${seen} 个。`,
    until_more: "有足够的更新或调小 flq_algorithm.bad_workers 后会自动继续。",
    waiting_for: (names) => `正在等待${names}。`, one_worker: "节点", many_workers: "节点", and: "和", comma: "、",
    heard: (time) => `最近一次联系在 ${time}前`, not_connected: "未连接", slow: "比平时慢", more: (count) => `另外 ${count} 个`,
    goes_on: (time) => `最迟 ${time}后本轮将不再等待，继续进行。`, start_them: "没有其他节点可以继续训练：请启动它们。",
    go_on: "不再等待，继续", go_on_without: (worker) => `不再等待节点 ${worker}，继续`, sure_go_on: (names) => `不再等待${names}？被移除的节点不能再加入本次训练。`,
    sure_lower: (keys) => `设置 ${keys} 并继续？恢复的节点会重新参加训练。`,
    pause: "暂停", resume: "继续", stop: "停止", change_key: "修改参数", remove: "移除", lock: "清除令牌",
    caller: ({ role, name }) => (role === "viewer" ? `查看者 ${name}：只能查看，不能修改` : `操作者 ${name}`), by: (name) => `（操作者：${name}）`,
    sure_stop: "确定永久停止本次训练？主节点将结束当前轮、保存结果并退出。",
    sure_remove: (worker) => `确定永久移除节点 ${worker}？它不能再加入本次训练。`,
    token_title: "操作者或查看者的令牌", token_why: "操作者令牌是主节点所在机器上 ~/.flq/token 文件中的一行；查看者令牌能看到更多内容，但不能修改。本页面只在内存中保留它，关闭或刷新后即清除，不会存储。",
    token_wrong: "主节点不接受这个令牌。", cancel: "取消", ok: "确定", key: "参数", value: "值（JSON）",
    asking: "正在请求主节点……", failed: (text) => `被拒绝：${text}`, unreachable: "主节点没有响应。",
    did: { pause: "已暂停。", resume: "已继续。", stop: (folder) => `已停止。结果保存在主节点的 ${folder}。`,
      unsaved: (folder) => `已停止。结果未能写出，各轮数据在主节点的 ${folder}。`,
      change: (changed, round) => `${changed}，从第 ${round} 轮起生效。`, unchanged: "值没有变化。", remove: (worker) => `节点 ${worker} 已移除。` },
    config_locked: "在网络上查看配置需要查看者或操作者的令牌。", unlock: "输入令牌",
    link_csv: "历史记录（CSV）", link_status: "状态（JSON）", link_metrics: "Prometheus 指标", link_api: "接口说明（OpenAPI）",
    shown_from: (round) => `从第 ${round} 轮起`,
    seconds: (s) => `${s} 秒`, minutes: (min, s) => `${min} 分 ${s} 秒`, hours: (h, min) => `${h} 小时 ${min} 分`,
    phases: { WAITING: "等待工作节点", BIDDING: "工作节点训练中", UPLOADING: "工作节点上传中",
      AGGREGATING: "聚合中", BLOCKED: "受阻：主节点无法写入磁盘", FINISHED: "已完成", STOPPED: "已停止" },
    states: { waiting: "等待", training: "训练中", uploading: "上传中", granted: "已获准", refused: "未选中", skipped: "跳过",
      done: "完成", away: "离线", left_out: "不再等待", removed: "已移除", lost: "失联", slow: "缓慢" },
    event: (event) => ({ join: `节点 ${event.worker} 加入`, leave: `节点 ${event.worker} 离开`, remove: `节点 ${event.worker} 被移除`,
      reset: `节点 ${event.worker} 的参考值清零后重新开始`, absent: `节点 ${event.worker} 缺席过久，已退出平均`,
      samples: `节点 ${event.worker} 的样本数改变`, config: `${event.key} 被修改`, pause: "暂停", resume: "继续",
      flagged: `节点 ${event.worker} 被标记：其回应超出限度，未被采用`,
      expelled: `节点 ${event.worker} 多次被标记，已退出平均`,
      overweight: `节点 ${event.worker} 的样本占比过大，已退出平均`,
      rollback: "运行退回到较早的轮次", stop: "运行被要求停止" })[event.event],
    meanings: [
      ["训练中、上传中、等待", "本轮正在等待该节点，或者该节点在等待其他节点"],
      ["失联", "该节点沉默的时间过长：可能已经退出，或者网络中断"],
      ["缓慢", "节点仍在线，但用时超过最近几轮最慢节点的两倍"],
      ["不再等待、离线、已移除", "连续两次超过期限；已离开或被放弃；被操作者移除"],
      ["跳过、未选中、缺席", "没有足够的新信息可发送；竞标未被选中；没有收到可用的应答"],
      ["标称、载荷、线路", "按论文方法计算的比特；消息体的比特；套接字上的全部字节，包括报头和轮询"],
      ["按 float32 计", "同样的轮次不压缩时需要发送的比特"],
    ],
  },
};

const REMEMBERED = "flq-language";

// The reader's last choice, else the first language of the browser that the page has.
export function firstLanguage() {
  let remembered = null;
  try {
    remembered = localStorage.getItem(REMEMBERED);
  } catch {
    // storage is switched off
  }
  const known = (tag) => Object.keys(WORDS).find((name) => String(tag).toLowerCase().split("-")[0] === name);
  return known(remembered) ?? navigator.languages.map(known).find(Boolean) ?? "en";
}

export function rememberLanguage(language) {
  try {
    localStorage.setItem(REMEMBERED, language);
  } catch {
    // storage is switched off: the choice holds until the page is left
  }
}
