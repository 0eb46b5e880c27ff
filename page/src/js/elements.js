// Elements and texts. Everything that is shown goes through `el` and `shown`: a text is only ever a text.

const STRANGE = /[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u200b-\u200f\u2028-\u202e\u2066-\u2069\ufeff\ufffd]/;
const LONG = 700;

/** An element with properties, attributes and children; what is null or false is left out. */
function el(tag, options, ...children) {
  const [name, ...classes] = tag.split(".");
  const element = document.createElement(name || "div");
  if (classes.length) element.className = classes.join(" ");
  for (const [key, value] of Object.entries(options || {})) {
    if (value === null || value === undefined || value === false) continue;
    if (key === "on") for (const [event, listener] of Object.entries(value)) element.addEventListener(event, listener);
    else if (key === "class") element.classList.add(...value.split(" ").filter(Boolean));
    else if (key === "place") Object.assign(element.style, value);
    else element.setAttribute(key, value === true ? "" : value);
  }
  add(element, children);
  return element;
}

function add(element, children) {
  for (const child of children.flat(3)) {
    if (child === null || child === undefined || child === false) continue;
    element.append(child instanceof Node ? child : document.createTextNode(String(child)));
  }
}

/** Others' text: characters that cannot be seen, or that would reorder the line, by their numbers. */
function shown(text) {
  text = String(text);
  if (!STRANGE.test(text)) return [text];
  const parts = [];
  let plain = "";
  for (const character of text) {
    if (!STRANGE.test(character)) { plain += character; continue; }
    if (plain) parts.push(plain);
    plain = "";
    const number = character.codePointAt(0).toString(16).padStart(4, "0");
    parts.push(el("span.ctl", { title: "a character that is not shown as it is" }, `\\u{${number}}`));
  }
  if (plain) parts.push(plain);
  return parts;
}

/** The same, with a button for the rest of what is long. */
function clipped(text, tag = "span") {
  text = String(text);
  if (text.length <= LONG) return el(`${tag}.any`, null, shown(text));
  const whole = el(`${tag}.any`, null, shown(text.slice(0, LONG - 200)), "… ");
  const rest = el("button.more", { type: "button" }, `${count(text.length - LONG + 200, "more character")}`);
  rest.addEventListener("click", () => whole.replaceChildren(...nodes(shown(text))));
  whole.append(rest);
  return whole;
}

function nodes(parts) {
  return parts.map((part) => (part instanceof Node ? part : document.createTextNode(part)));
}

function count(number, what, many = `${what}s`) {
  return `${number.toLocaleString("en")} ${number === 1 ? what : many}`;
}

/** Microseconds. */
function duration(us) {
  if (us === null || us === undefined) return "–";
  if (us < 1000) return `${us < 10 ? us.toFixed(1) : Math.round(us)} µs`;
  if (us < 1e6) return `${(us / 1000).toFixed(us < 1e5 ? 1 : 0)} ms`;
  return `${(us / 1e6).toFixed(us < 1e7 ? 2 : 1)} s`;
}

function size(bytes) {
  if (bytes === null || bytes === undefined) return "–";
  if (bytes < 1024) return `${bytes} B`;
  if (bytes < 1024 * 1024) return `${(bytes / 1024).toFixed(bytes < 10240 ? 1 : 0)} KiB`;
  return `${(bytes / 1048576).toFixed(1)} MiB`;
}

/** The time of day of an RFC 3339 timestamp, here. */
function clock(timestamp) {
  const date = new Date(timestamp);
  if (Number.isNaN(date.getTime())) return "";
  const two = (number) => String(number).padStart(2, "0");
  const thousandths = String(date.getMilliseconds()).padStart(3, "0");
  return `${two(date.getHours())}:${two(date.getMinutes())}:${two(date.getSeconds())}.${thousandths}`;
}

/** How good a status is, as a class. */
function grade(status) {
  if (status === null || status === undefined || status >= 500) return "bad";
  if (status >= 400) return "warn";
  return status >= 200 && status < 300 ? "good" : "";
}

function list(value) {
  return Array.isArray(value) ? value : [];
}
