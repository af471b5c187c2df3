// Elements, numbers and calls. Text goes in as text only: nothing that a server says is markup.

const byId = (id) => document.getElementById(id);

function make(name, attributes = {}, ...children) {
  const space = ["svg", "path", "line", "text"].includes(name)
    ? "http://www.w3.org/2000/svg" : "http://www.w3.org/1999/xhtml";
  const element = document.createElementNS(space, name);
  for (const [key, value] of Object.entries(attributes)) {
    if (value !== null && value !== false) element.setAttribute(key, value);
  }
  element.append(...children);
  return element;
}

// Four digits at most; a score that is not finite comes as null.
function shown(value, unit = "") {
  if (value === null || value === undefined || Number.isNaN(value)) return "-";
  const size = Math.abs(value);
  if (unit === "B") {
    const power = size < 1 ? 0 : Math.min(4, Math.floor(Math.log2(size) / 10));
    const number = Number((value / 1024 ** power).toPrecision(3));
    return `${number} ${["B", "KiB", "MiB", "GiB", "TiB"][power]}`;
  }
  const text = size >= 1000 && size < 1e9
    ? Math.round(value).toLocaleString("en") : String(Number(value.toPrecision(4)));
  return unit && unit !== "/s" ? `${text} ${unit}` : text + unit;
}

const signed = (value) => (value > 0 ? "+" : "") + shown(value);

// Whole numbers beyond 2^53 stay the text that they were, where the browser tells it.
function parsed(text) {
  return JSON.parse(text, (key, value, context) =>
    typeof value === "number" && !Number.isSafeInteger(value)
      && context && /^-?\d+$/.test(context.source) ? context.source : value);
}

let token = "";

// Gives {isOk, status, body}; body is JSON, or a problem that says why there is none.
async function call(path, options = {}) {
  const headers = { ...(options.headers || {}) };
  if (token) headers.Authorization = `Bearer ${token}`;
  let answer;
  try {
    answer = await fetch(path, { ...options, headers, cache: "no-store", redirect: "error" });
  } catch {
    return { isOk: false, status: 0, body: { title: "No answer", code: "unreachable",
      detail: "The server cannot be reached, or broke the connection. Try again." } };
  }
  if (answer.status === 401) byId("login").hidden = false;
  let body = null;
  try {
    body = await answer.json();
  } catch {
    body = null;
  }
  if (body === null) {
    return { isOk: false, status: answer.status, body: { title: "No answer", code: "unreadable",
      detail: `The server answered ${answer.status} with something that is no JSON.` } };
  }
  return { isOk: answer.ok, status: answer.status, body };
}
