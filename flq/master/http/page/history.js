// The rounds of a run as columns: what the charts draw.

import { number } from "./format.js";

export const MOST_ROUNDS = 20000; // of a longer run the newest: the charts have no room for more
const PART = 1000; // rounds in one answer
const MOST_EVENTS = 2000;

const ANSWERS = ["selected", "skipped", "refused", "missing"];

export class History {
  constructor() {
    this.forget();
  }

  forget() {
    this.first = 0; // the round of rows[0]
    this.rows = [];
    this.events = [];
    this.pending = 0;
    this.eventsFrom = 0; // the round from which on there may be new events
  }

  get length() {
    return this.first + this.rows.length;
  }

  // Everything that is new since the last call. ask: path -> JSON. Tests and bits of the last rounds may still come.
  async follow(status, ask) {
    const done = Math.max(0, Math.floor(number(status.current_round) ?? 0));
    if (done < this.length) {
      this.forget();
    }
    if (!this.rows.length) {
      this.first = Math.max(0, done - MOST_ROUNDS);
    }
    const changed = Math.max(this.first, this.length - this.pending - 2);
    this.pending = Math.max(0, Math.floor(number(status.pending_tests) ?? 0));
    for (let since = changed; since < done; since += PART) {
      const { rounds } = await ask(`history?since=${since}&limit=${PART}`);
      if (!rounds.length) {
        break;
      }
      for (const record of rounds) {
        if (record.round >= this.first && record.round <= this.length) {
          this.rows[record.round - this.first] = record;
        }
      }
    }
    if (this.rows.length > 2 * MOST_ROUNDS) {
      this.first += this.rows.length - MOST_ROUNDS;
      this.rows = this.rows.slice(-MOST_ROUNDS);
    }
  }

  // The events since the last call; they are few, and need not come with every round.
  async followEvents(ask) {
    const since = this.eventsFrom;
    const { events } = await ask(`events?since=${since}`);
    this.events = this.events.filter((event) => event.round < since).concat(events).slice(-MOST_EVENTS);
    this.eventsFrom = Math.max(since, this.length - 1);
  }

  // How often the configuration was changed.
  get changes() {
    return this.events.filter(({ event }) => event === "config").length;
  }

  // A round is counted when it has closed: the first one is 1, as in "round 1 of 30".
  get counts() {
    return this.rows.map((_, index) => this.first + index + 1);
  }

  column(name) {
    return this.rows.map((record) => number(record[name]));
  }

  answers() {
    return Object.fromEntries(ANSWERS.map((name) => [name, this.rows.map((record) => (Array.isArray(record[name]) ? record[name].length : 0))]));
  }

  // Bits since the start of the run after each round, both directions. kind: payload or float32.
  bitsSoFar(kind, totals) {
    const of = (record) => Math.max(0, number(record[`${kind}_bits_up`]) ?? 0) + Math.max(0, number(record[`${kind}_bits_down`]) ?? 0);
    const inRows = this.rows.reduce((sum, record) => sum + of(record), 0);
    let sum = this.first ? Math.max(0, (number(totals.up?.[kind]) ?? 0) + (number(totals.down?.[kind]) ?? 0) - inRows) : 0;
    return this.rows.map((record) => (sum += of(record)));
  }

  // {x, sent, float32}: the accuracy against both kinds of bits, on one ascending axis.
  accuracyByBits(totals) {
    const accuracy = this.column("accuracy");
    const points = ["payload", "float32"].flatMap((kind) => this.bitsSoFar(kind, totals).map((bits, index) => ({ kind, bits, value: accuracy[index] })))
      .filter(({ bits, value }) => bits >= 1 && bits <= 1e200 && value !== null).sort((a, b) => a.bits - b.bits);
    const x = [], columns = { payload: [], float32: [] };
    for (const { kind, bits, value } of points) {
      if (x[x.length - 1] !== bits) {
        x.push(bits);
        columns.payload.push(null);
        columns.float32.push(null);
      }
      columns[kind][x.length - 1] = value;
    }
    return { x, ...columns };
  }
}
