// The table of workers: those in trouble first, sorted by any column, filtered by state.
// Whatever came from a worker reaches the page through textContent only.

import { bitsText, decimal, deviceDetails, deviceText, duration, hostOf, integer, number } from "./format.js";

const TROUBLE = ["lost", "slow", "left_out", "away"]; // the worst first; who was removed or is done is no trouble
const BUSY = ["training", "uploading", "granted"];
const REST = ["waiting", "skipped", "refused", "done", "removed"];
const ORDER = [...TROUBLE, ...BUSY, ...REST];

export class Workers {
  // remove(id): what the button of a row does.
  constructor(remove) {
    this.remove = remove;
    this.sorted = { name: null, down: false }; // null: trouble first, then by number
    this.state = null; // only workers in this state
    this.rows = new Map(); // id -> <tr>
    this.made = "";
  }

  // workers: worker_status of /status. age: seconds since it came. unlocked: whether rows have their button.
  show(words, { worker_status: workers, cohorts }, age, unlocked) {
    this.last = [words, { worker_status: workers, cohorts }, age, unlocked];
    const columns = this.columns(words, cohorts, age, unlocked);
    const made = JSON.stringify([columns.map(({ title }) => title), this.sorted]);
    if (made !== this.made) {
      this.made = made;
      this.rows.clear();
      document.getElementById("columns").replaceChildren(...columns.map((column) => this.heading(column)));
    }
    const all = Object.entries(workers);
    this.showStates(words, all);
    const shown = all.filter(([, worker]) => this.state === null || worker.state === this.state).sort(this.comparison(columns));
    const body = document.getElementById("workers");
    const rows = shown.length ? shown.map(([id, worker]) => this.row(id, worker, columns)) : [this.emptyRow(words, columns)];
    if (body.children.length !== rows.length || rows.some((row, index) => row !== body.children[index])) {
      body.replaceChildren(...rows);
    }
  }

  columns(words, cohorts, age, unlocked) {
    const seen = (worker) => (number(worker.last_seen_s) === null ? null : worker.last_seen_s + age);
    return [
      { name: "id", title: words.worker, text: (worker, id) => (hostOf(worker.device) ? `${id} (${hostOf(worker.device)})` : id), value: (worker, id) => Number(id) },
      ...(cohorts > 1 ? [{ name: "cohort", title: words.cohort, kind: "number", text: (worker) => integer(worker.cohort + 1), value: (worker) => worker.cohort }] : []),
      { name: "state", title: words.state, pill: true, text: (worker) => stateText(words, worker.state), value: (worker) => rank(worker.state) },
      { name: "last_seen", title: words.last_seen, kind: "number", text: (worker) => (seen(worker) === null ? words.never : words.ago(duration(words, seen(worker)))), value: seen },
      { name: "round", title: words.round, kind: "number", text: (worker) => (number(worker.round) === null ? "–" : integer(worker.round + 1)), value: (worker) => worker.round },
      { name: "loss", title: words.loss_of, kind: "number", text: (worker) => decimal(worker.loss), value: (worker) => worker.loss },
      ...["uploads", "missing", "skipped", "refused"].map((name) => (
        { name, title: words[name], kind: "number", text: (worker) => integer(worker[name]), value: (worker) => worker[name] })),
      { name: "up", title: words.up, kind: "number", text: (worker) => bitsText(worker.bits_up), value: (worker) => worker.bits_up },
      { name: "down", title: words.down, kind: "number", text: (worker) => bitsText(worker.bits_down), value: (worker) => worker.bits_down },
      { name: "device", title: words.device, kind: "free", text: (worker) => deviceText(worker.device), value: (worker) => deviceText(worker.device), hint: (worker) => deviceDetails(worker.device) },
      ...(unlocked ? [{ name: "action", title: words.action, button: words.remove }] : []),
    ];
  }

  heading({ name, title, kind, button }) {
    const head = document.createElement("th");
    head.scope = "col";
    head.className = kind ?? "";
    if (button) {
      return head;
    }
    const sorted = this.sorted.name === name;
    head.ariaSort = sorted ? (this.sorted.down ? "descending" : "ascending") : null;
    const control = head.appendChild(document.createElement("button"));
    control.type = "button";
    control.textContent = sorted ? `${title} ${this.sorted.down ? "▾" : "▴"}` : title;
    control.addEventListener("click", () => {
      this.sorted = sorted && this.sorted.down ? { name: null, down: false } : { name, down: sorted };
      this.show(...this.last);
      [...document.querySelectorAll("#columns button")].find((other) => other.textContent.startsWith(title))?.focus();
    });
    return head;
  }

  comparison(columns) {
    const column = columns.find(({ name }) => name === this.sorted.name);
    const trouble = (worker) => (TROUBLE.includes(worker.state) ? TROUBLE.indexOf(worker.state) : TROUBLE.length);
    const byNumber = ([a], [b]) => Number(a) - Number(b);
    if (!column) {
      return (a, b) => trouble(a[1]) - trouble(b[1]) || byNumber(a, b);
    }
    const sign = this.sorted.down ? -1 : 1;
    const of = ([id, worker]) => column.value(worker, id) ?? null;
    return (a, b) => {
      const [left, right] = [of(a), of(b)];
      if (left === null || right === null) { // what is not known comes last, whatever the direction
        return (left === null) - (right === null) || byNumber(a, b);
      }
      return sign * (typeof left === "string" ? left.localeCompare(right) : left - right) || byNumber(a, b);
    };
  }

  showStates(words, all) {
    const counts = new Map();
    for (const [, { state }] of all) {
      counts.set(state, (counts.get(state) ?? 0) + 1);
    }
    if (!counts.has(this.state)) {
      this.state = null;
    }
    const states = [...counts.keys()].sort((a, b) => rank(a) - rank(b));
    const pills = (all.length > 1 ? [null, ...states] : []).map((state) => {
      const button = document.createElement("button");
      button.type = "button";
      button.className = `pill ${kindOf(state)}`;
      button.ariaPressed = String(this.state === state);
      button.textContent = `${state === null ? words.all_states : stateText(words, state)} ${state === null ? all.length : counts.get(state)}`;
      button.addEventListener("click", () => {
        this.state = this.state === state ? null : state;
        this.show(...this.last);
      });
      return button;
    });
    const box = document.getElementById("states");
    const look = (nodes) => [...nodes].map((node) => node.textContent + node.ariaPressed).join();
    if (look(box.children) !== look(pills)) {
      box.replaceChildren(...pills);
    }
  }

  row(id, worker, columns) {
    let row = this.rows.get(id);
    if (!row) {
      row = document.createElement("tr");
      row.append(...columns.map((column) => this.cell(id, column)));
      this.rows.set(id, row);
    }
    row.className = TROUBLE.includes(worker.state) ? kindOf(worker.state) : "";
    columns.forEach((column, index) => {
      if (column.button) {
        row.cells[index].firstChild.hidden = worker.state === "removed" || worker.state === "done";
        return;
      }
      const cell = row.cells[index];
      const place = column.pill ? cell.firstChild : cell;
      const text = column.text(worker, id);
      if (place.textContent !== text) {
        place.textContent = text;
      }
      if (column.pill) {
        place.className = `pill ${kindOf(worker.state)}`;
      }
      if (column.hint) {
        cell.title = column.hint(worker);
      }
    });
    return row;
  }

  cell(id, { title, kind, pill, button }) {
    const cell = document.createElement("td");
    cell.className = kind ?? "";
    cell.dataset.name = title;
    if (pill) {
      cell.append(document.createElement("span"));
    }
    if (button) {
      const control = cell.appendChild(document.createElement("button"));
      control.type = "button";
      control.textContent = button;
      control.addEventListener("click", () => this.remove(id));
    }
    return cell;
  }

  emptyRow(words, columns) {
    const row = document.createElement("tr");
    const cell = row.appendChild(document.createElement("td"));
    cell.textContent = words.no_workers;
    cell.colSpan = columns.length;
    return row;
  }
}

function rank(state) {
  return ORDER.includes(state) ? ORDER.indexOf(state) : ORDER.length;
}

function kindOf(state) {
  return ORDER.includes(state) ? state : "other"; // a class is one of ours
}

function stateText(words, state) {
  return words.states[state] ?? String(state);
}
