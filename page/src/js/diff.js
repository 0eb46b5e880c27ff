// Differences between texts: of lines, and within two of them.

const MOST_LINES = 400;

/** What two texts have in common at both ends, and what differs between. Surrogate pairs stay whole. */
function around(from, to) {
  const most = Math.min(from.length, to.length);
  let start = 0;
  while (start < most && from[start] === to[start]) start += 1;
  if (start > 0 && /[\ud800-\udbff]/.test(from[start - 1])) start -= 1;
  let end = 0;
  while (end < most - start && from[from.length - 1 - end] === to[to.length - 1 - end]) end += 1;
  if (end > 0 && /[\udc00-\udfff]/.test(from[from.length - end])) end -= 1;
  return { start, end };
}

/** One line that became another, with what differs marked. */
function changed(from, to, key, [was, is] = ["before", "after"]) {
  const { start, end } = around(from, to);
  const alike = start + end >= Math.min(from.length, to.length) * 0.3;
  const part = (text, tag) =>
    alike && text.length < LONG
      ? [shown(text.slice(0, start)), el(tag, null, shown(text.slice(start, text.length - end))), shown(text.slice(text.length - end))]
      : clipped(text);
  return [sign("del", "−", was, key, part(from, "del")), sign("add", "+", is, key, part(to, "ins"))];
}

function sign(kind, mark, word, key, text) {
  return el(`div.change.${kind || "same"}`, null,
    el("span.sign", { "aria-hidden": "true" }, mark),
    el("span.text", null, word && el("span.hidden", null, `${word}: `), key && [el("span.key", null, shown(key)), ": "], text));
}

/** What a callback did to headers, map by map. */
function headerChanges(changes) {
  const maps = new Map();
  for (const change of list(changes)) {
    if (!maps.has(change.map)) maps.set(change.map, []);
    maps.get(change.map).push(change);
  }
  return [...maps].map(([map, ofMap]) =>
    el("div.card", null, el("div.cap", null, words(map)),
      el("div.diff", null, ofMap.map(({ name, from, to }) => {
        if (from === null || from === undefined) return sign("add", "+", "added", name, clipped(to ?? ""));
        if (to === null || to === undefined) return sign("del", "−", "removed", name, clipped(from));
        return changed(from, to, name);
      }))));
}

/** Line by line: the longest common subsequence, within bounds. */
function lines(from, to, [was, is] = ["before", "after"]) {
  const a = from.split("\n");
  const b = to.split("\n");
  if (a.length === 1 && b.length === 1) return changed(from, to, null, [was, is]);
  if (a.length > MOST_LINES || b.length > MOST_LINES) {
    return [...a.map((line) => sign("del", "−", was, null, clipped(line))), ...b.map((line) => sign("add", "+", is, null, clipped(line)))].slice(0, 2 * MOST_LINES);
  }
  const longest = Array.from({ length: a.length + 1 }, () => new Uint16Array(b.length + 1));
  for (let i = a.length - 1; i >= 0; i -= 1) {
    for (let j = b.length - 1; j >= 0; j -= 1) {
      longest[i][j] = a[i] === b[j] ? longest[i + 1][j + 1] + 1 : Math.max(longest[i + 1][j], longest[i][j + 1]);
    }
  }
  const rows = [];
  let [i, j] = [0, 0];
  while (i < a.length || j < b.length) {
    if (i < a.length && j < b.length && a[i] === b[j]) { rows.push(["same", a[i]]); i += 1; j += 1; }
    else if (j >= b.length || (i < a.length && longest[i + 1][j] >= longest[i][j + 1])) { rows.push(["del", a[i]]); i += 1; }
    else { rows.push(["add", b[j]]); j += 1; }
  }
  return folded(rows, [was, is]);
}

/** Runs of equal lines, but for two on each side. */
function folded(rows, [was, is]) {
  const near = (at) => rows.slice(Math.max(0, at - 2), at + 3).some(([kind]) => kind !== "same");
  const out = [];
  let left = 0;
  rows.forEach(([kind, line], at) => {
    if (kind === "same" && !near(at)) { left += 1; return; }
    if (left) out.push(sign("gap", "", "", null, el("span.gap", null, `… ${count(left, "equal line")}`)));
    left = 0;
    out.push(kind === "same" ? sign("", " ", "", null, clipped(line)) : sign(kind, kind === "add" ? "+" : "−", kind === "add" ? is : was, null, clipped(line)));
  });
  if (left) out.push(sign("gap", "", "", null, el("span.gap", null, `… ${count(left, "equal line")}`)));
  return out;
}

/** What a callback did to bodies. */
function bodyChanges(changes) {
  return list(changes).map(({ body, from, to }) => {
    const text = (content) => content.excerpt ?? (content.bytes ? null : "");
    const [before, after] = [text(from), text(to)];
    const cap = el("div.cap", null, `${words(body)}: ${size(from.bytes)} → ${size(to.bytes)}`, (from.cut || to.cut) && el("span.faint", null, " (its beginning)"));
    const diff = before === null || after === null
      ? el("div.said.soft", null, "It is not text, or not shown.")
      : el("div.diff", null, before === "" ? after.split("\n").slice(0, MOST_LINES).map((line) => sign("add", "+", "after", null, clipped(line)))
        : after === "" ? before.split("\n").slice(0, MOST_LINES).map((line) => sign("del", "−", "before", null, clipped(line))) : lines(before, after));
    return el("div.card", null, cap, diff);
  });
}

function words(name) {
  return String(name).replaceAll("_", " ");
}
