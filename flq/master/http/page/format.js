// Numbers and devices as people read them. Whatever comes in, a text comes out: numbers may be missing, endless or no numbers at all.

const LARGEST = 1e200; // what is further from 0 is not shown: the distance of two such values may be no number

export function number(value) {
  return typeof value === "number" && Math.abs(value) <= LARGEST ? value : null;
}

export function percent(value) {
  return number(value) === null ? "–" : `${(100 * value).toFixed(2)} %`;
}

export function decimal(value) {
  return number(value) === null ? "–" : Number(value.toPrecision(4)).toString();
}

export function integer(value) {
  return number(value) === null ? "–" : String(Math.round(value));
}

export function ratio(value) {
  return value < 99.95 ? value.toFixed(1) : value.toFixed(0);
}

// 12345678 -> 12.3 Mbit; 1 Mbit is 10^6 bits.
export function bitsText(bits) {
  if (number(bits) === null) {
    return "–";
  }
  if (bits < 1000) {
    return `${Math.round(bits)} bit`;
  }
  const power = Math.min(5, Math.floor(Math.log10(bits * 1.0005) / 3));
  const scaled = bits / 1000 ** power;
  return `${scaled < 1e6 ? scaled.toPrecision(scaled < 1000 ? 3 : 6) : scaled.toExponential(2)} ${" kMGTP"[power]}bit`;
}

export function wholePercent(value) {
  return `${Number((100 * value).toPrecision(6))} %`;
}

// 0.35 -> 0.35 s: what is measured, such as a round.
export function exactDuration(words, seconds) {
  return number(seconds) !== null && Math.abs(seconds) < 10 ? words.seconds(Number(seconds.toPrecision(3))) : duration(words, seconds);
}

export function duration(words, seconds) {
  if (number(seconds) === null) {
    return "–";
  }
  const whole = Math.round(seconds);
  if (whole < 60) {
    return words.seconds(whole);
  }
  const minutes = Math.floor(whole / 60);
  return whole < 3600 ? words.minutes(minutes, whole % 60) : words.hours(Math.floor(minutes / 60), minutes % 60);
}

// "Jetson Nano, JetPack 4.6, 4 GB, 54 °C"
export function deviceText(device) {
  const { model, gpus, machine, jetpack, memory_mb: memory, temperature_c: temperature } = object(device);
  const board = typeof model === "string" ? model.replace(/^NVIDIA /, "").replace(/ Developer Kit.*$/, "") : Array.isArray(gpus) && gpus.length ? gpus.join(", ") : machine;
  const parts = [board, jetpack === undefined ? "" : `JetPack ${plain(jetpack)}`];
  if (number(memory) > 0) {
    parts.push(memory < 1000 ? `${Math.round(memory)} MB` : `${Math.round(memory / 1024)} GB`);
  }
  if (number(temperature) !== null) {
    parts.push(`${Math.round(temperature)} °C`);
  }
  return parts.map(plain).filter(Boolean).join(", ");
}

// Everything that a worker said of its machine, a line each.
export function deviceDetails(device) {
  return Object.entries(object(device)).map(([name, value]) => `${name}: ${plain(value)}`).join("\n");
}

export function hostOf(device) {
  return plain(object(device).host);
}

function object(value) {
  return value !== null && typeof value === "object" ? value : {};
}

function plain(value) {
  if (value === null || value === undefined) {
    return "";
  }
  const text = typeof value === "object" ? JSON.stringify(value) : String(value);
  return text.length > 80 ? `${text.slice(0, 79)}…` : text;
}
