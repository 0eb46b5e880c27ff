// The page itself: what it knows, what is chosen, and the keys.

const LIVE = document.documentElement.dataset.mode === "live";
const KEPT = 500;
const id = (name) => document.getElementById(name);

const state = {
  entries: [], known: {}, tab: "requests", chosen: null, follow: true, paused: false, waiting: [], filter: "", skipped: 0, boot: null,
};

// What there is to see: requests while live, test cases in a report.

function entryOf(key, trace) {
  const found = summary(trace);
  const text = [trace.method, trace.authority, trace.path, trace.status, trace.details, outcome(trace), ...list(trace.filters).map((filter) => filter.name)].join(" ").toLowerCase();
  return { key, trace, found, text };
}

function casesOf(data) {
  const all = (suite) => [...list(suite.problems).map((problem) => ({ name: "the suite could not be run", verdict: { broken: problem } })), ...list(suite.cases)];
  return list(data && data.suites).flatMap((suite, s) => all(suite).map((test, c) =>
    ({ key: `${s}-${c}`, suite, test, text: `${suite.file} ${test.name} ${verdictOf(test)}`.toLowerCase() })));
}

/** `status:4xx by:check method:post is:failed`, and words, all of which have to match. */
function matches(entry, filter) {
  return filter.toLowerCase().split(/\s+/).filter(Boolean).every((word) => {
    const [, key, value] = /^(status|by|method|is):(.+)$/.exec(word) ?? [];
    const { trace, test, found } = entry;
    if (key === "is" && test) return verdictOf(test) === value;
    if (key === "is") return value === "hazard" ? found.hazards > 0 : value === "changed" ? found.changes > 0 : value === "failed" && (trace.status === null || trace.status >= 400);
    if (!key || !trace) return entry.text.includes(word);
    if (key === "status") return new RegExp(`^${value.replace(/[^0-9x]/g, "").replaceAll("x", "[0-9]")}`).test(String(trace.status ?? ""));
    if (key === "by") return String(trace.answered_by ?? "upstream").toLowerCase().includes(value);
    return trace.method.toLowerCase() === value;
  });
}

function visible() {
  return state.filter.trim() ? state.entries.filter((entry) => matches(entry, state.filter)) : state.entries;
}

// The list

const rows = el("div.rows", { id: "rows", role: "listbox", tabindex: "0", "aria-label": LIVE ? "Requests, the newest first" : "Tests" });
const detail = el("div.detail", { id: "detail", role: "region", tabindex: "-1", "aria-label": "Details" });
const input = el("input", { id: "filter", type: "search", placeholder: "Filter  ( / )", "aria-label": LIVE ? "Filter requests" : "Filter tests", autocomplete: "off", spellcheck: "false" });
const pause = LIVE && el("button.button", { type: "button", "aria-pressed": "false", title: "Stop adding requests (p)" }, "Pause");
const clear = LIVE && el("button.button", { type: "button", title: "Forget the requests here (c)" }, "Clear");
const nothing = el("div.rows", { id: "nothing" });
const panes = el("div.panes", null, el("div.list", null, el("div.tools", null, input, pause, clear), nothing, rows), detail);

function rowOf(entry) {
  const option = el("div.row", { id: `row-${entry.key}`, role: "option", "aria-selected": "false" });
  if (entry.test) {
    const [kind, word] = VERDICTS[verdictOf(entry.test)] ?? ["", "?"];
    const failed = [entry.test, entry.test.envoy?.ran].filter(Boolean).flatMap((test) => kindOf(test.verdict) === "failed" ? list(test.verdict.failed) : []);
    add(option, [el("span.status", { class: kind }, word), el("span.what", null, shown(entry.test.name)), el("span.took.num", null, duration(taken(entry.test.took))),
      failed.length > 0 && el("span.under", null, el("span", null, shown(failed[0].what)))]);
  } else {
    const { trace, found } = entry;
    add(option, [statusOf(trace), el("span.what.mono", null, title(trace)), el("span.took.num", null, duration(trace.took_us)),
      el("span.under", null, el("span", null, shown(isRequest(trace) && trace.answered_by ? `by ${trace.answered_by}` : outcome(trace))),
        found.changes > 0 && el("span", null, `±${found.changes}`, el("span.hidden", null, " changes")), found.calls > 0 && el("span", null, count(found.calls, "callout")), found.logs > 0 && el("span", null, count(found.logs, "log")),
        found.hazards > 0 && el("span.tag.bad", null, count(found.hazards, "hazard")), el("span.grow"), el("span.num", null, clock(trace.started)))]);
  }
  option.addEventListener("click", () => choose(entry.key, true));
  return option;
}

function drawList() {
  const entries = visible();
  const at = rows.scrollTop;
  const before = new Map([...rows.querySelectorAll(".row")].map((row) => [row.id, row]));
  const row = (entry) => before.get(`row-${entry.key}`) ?? rowOf(entry);
  nothing.hidden = entries.length > 0;
  rows.hidden = !nothing.hidden;
  if (!entries.length) {
    rows.replaceChildren();
    nothing.replaceChildren(state.entries.length ? emptiness("Nothing matches", `None of ${state.entries.length} has all of these words.`) : LIVE
      ? emptiness("No requests yet", "What comes to the listener is shown here as soon as it is over.", example()) : emptiness("No tests", "The run had none."));
  } else if (!LIVE) {
    const groups = Map.groupBy ? Map.groupBy(entries, (entry) => entry.suite) : entries.reduce((map, entry) => map.set(entry.suite, [...(map.get(entry.suite) ?? []), entry]), new Map());
    rows.replaceChildren(...[...groups].map(([suite, of], at) => el("div", { role: "group", "aria-labelledby": `group-${at}` }, el("div.group", { id: `group-${at}`, role: "presentation", title: suite.file }, shown(suite.file)), of.map(row))));
  } else {
    const next = entries.map(row);
    if (before.size) next.filter((one) => !before.has(one.id)).forEach((one) => one.classList.add("fresh"));
    rows.replaceChildren(...next);
  }
  // What is looked at stays where it is while others come above it.
  rows.scrollTop = state.follow ? 0 : at;
  mark();
  drawTabs();
}

function example() {
  const address = state.known.chain && state.known.chain.address;
  return address ? `curl -i ${address}/` : null;
}

function mark() {
  for (const row of rows.querySelectorAll(".row")) row.setAttribute("aria-selected", String(row.id === `row-${state.chosen}`));
  const chosen = state.chosen !== null && id(`row-${state.chosen}`);
  if (chosen) rows.setAttribute("aria-activedescendant", chosen.id);
  else rows.removeAttribute("aria-activedescendant");
}

function choose(key, opens) {
  const entries = visible();
  state.follow = LIVE && entries.length > 0 && entries[0].key === key;
  if (state.chosen !== key) {
    state.chosen = key;
    drawDetail();
  }
  mark();
  const row = id(`row-${key}`);
  if (row) row.scrollIntoView({ block: "nearest" });
  if (opens) panes.classList.add("open");
}

function drawDetail() {
  const entry = state.entries.find((one) => one.key === state.chosen);
  const back = el("button.button.return", { type: "button", on: { click: leave } }, "← Back");
  detail.replaceChildren();
  if (!entry) {
    const any = state.entries.length > 0;
    add(detail, [emptiness(any ? "Choose one" : LIVE ? "Waiting for a request" : "Nothing to show", any ? "With the mouse, or with j and k." : "Its way through the chain is shown here, filter by filter.")]);
  } else add(detail, [back, entry.test ? caseView(entry.suite, entry.test) : traceView(entry.trace)]);
  detail.scrollTop = 0;
  detail.setAttribute("aria-label", entry ? (entry.test ? entry.test.name : `${entry.trace.method} ${entry.trace.path}`).slice(0, 200) : "Details");
}

function move(by) {
  const entries = visible();
  if (!entries.length) return;
  const at = entries.findIndex((entry) => entry.key === state.chosen);
  const next = at < 0 ? (by < 0 ? entries.length - 1 : 0) : Math.min(entries.length - 1, Math.max(0, at + by));
  choose(entries[next].key, false);
}

function open() {
  if (state.chosen === null) move(1);
  if (state.chosen === null) return;
  panes.classList.add("open");
  detail.focus();
}

function leave() {
  panes.classList.remove("open");
  rows.focus();
}

// The tabs

function tabs() {
  const wrong = wrongConfigurations(state.known.configuration);
  const failed = LIVE ? 0 : state.entries.filter((entry) => verdictOf(entry.test) !== "passed").length;
  const all = [{ name: "requests", title: LIVE ? "Requests" : "Tests", count: failed ? `${failed} of ${state.entries.length} failed` : state.entries.length || null, bad: failed > 0 }];
  if (LIVE) all.push({ name: "chain", title: "Chain", count: state.known.chain ? list(state.known.chain.filters).length : null }, { name: "configuration", title: "Configuration", count: wrong || null, bad: wrong > 0 });
  if (list(state.known.coverage).length) all.push({ name: "coverage", title: "Coverage", count: null, bad: false });
  if (state.known.build) all.push({ name: "build", title: "Build", count: BUILD[state.known.build.state]?.[0] === "bad" || state.known.tests?.state === "failed" ? "!" : null, bad: true });
  return all;
}

function drawTabs() {
  const focused = document.activeElement && document.activeElement.dataset.tab;
  id("tabs").replaceChildren(...tabs().map(({ name, title: text, count: number, bad }) => {
    const chosen = state.tab === name;
    return el("button", { type: "button", role: "tab", id: `tab-${name}`, "data-tab": name, "aria-selected": String(chosen), "aria-controls": `panel-${name}`, tabindex: chosen ? "0" : "-1", on: { click: () => show(name) } }, text, number !== null && el("span.count", { class: bad ? "bad" : "" }, number));
  }));
  if (focused) id(`tab-${focused}`)?.focus();
}

function panel(name, ...content) {
  return el("div", { id: `panel-${name}`, role: "tabpanel", "aria-labelledby": `tab-${name}` }, content);
}

function show(name) {
  state.tab = name;
  drawTabs();
  drawPanel();
}

function drawPanel() {
  const { chain, configuration, build, tests, coverage } = state.known;
  const page = (content) => el("div.page", { tabindex: "-1", id: "page" }, content);
  const views = { requests: () => panes, chain: () => page(chainView(chain)), configuration: () => page(configurationView(chain, configuration)), build: () => page(buildView(build, tests)), coverage: () => page(coverageView(list(coverage))) };
  const scrolled = id("page")?.scrollTop ?? 0;
  const same = id("main").firstElementChild?.id === `panel-${state.tab}`;
  if (same && state.tab === "requests") return;
  id("main").replaceChildren(panel(state.tab, (views[state.tab] ?? views.requests)()));
  if (same && id("page")) id("page").scrollTop = scrolled;
}

function drawPills() {
  const { build, tests } = state.known;
  const pill = ([kind, word], text) => el("button.pill", { class: kind, type: "button", on: { click: () => show("build") } }, text ?? word);
  const one = BUILD[build?.state];
  const times = build?.state === "served" && list(build.files).length ? `served ${duration((build.build_ms + build.swap_ms) * 1000)} after the save` : null;
  id("pills").replaceChildren(...[one && pill(one, times), tests && TESTS[tests.state] && pill(TESTS[tests.state])].filter(Boolean));
}

// Live

function follow() {
  const events = new EventSource(`${location.pathname.replace(/\/+$/, "")}/events`);
  connection("warn", "connecting…");
  events.addEventListener("open", () => connection("good", "live"));
  events.addEventListener("error", () => connection("bad", "not connected"));
  events.addEventListener("hello", ({ data }) => {
    const { boot } = JSON.parse(data);
    if (state.boot !== null && state.boot !== boot) forget();
    state.boot = boot;
  });
  events.addEventListener("state", ({ data }) => {
    const { name, value } = JSON.parse(data);
    const before = state.known[name];
    state.known[name] = value;
    if (name === "build" && value.state !== before?.state) say(BUILD[value.state]?.[1]);
    if (name === "tests" && value.state !== before?.state) say(TESTS[value.state]?.[1]);
    drawTabs();
    drawPills();
    if (state.tab !== "requests") drawPanel();
    else if (name === "chain" && !state.entries.length) drawList();
  });
  events.addEventListener("skipped", ({ data }) => { state.skipped += JSON.parse(data).count; });
  events.addEventListener("trace", ({ data, lastEventId }) => {
    state.waiting.push(entryOf(lastEventId.split("-").pop(), JSON.parse(data)));
    if (state.paused) { state.waiting = state.waiting.slice(-KEPT); connection("warn", `paused, ${count(state.waiting.length, "request")} waiting`); }
    else soon();
  });
}

let drawing = false;

/** Many requests at once are one change of the list. */
function soon() {
  if (drawing) return;
  drawing = true;
  requestAnimationFrame(() => {
    drawing = false;
    if (state.paused || !state.waiting.length) return;
    state.entries = [...state.waiting.reverse(), ...state.entries].slice(0, KEPT);
    state.waiting = [];
    drawList();
    const newest = visible()[0];
    if (state.follow && newest) choose(newest.key, false);
    else if (state.chosen === null) drawDetail();
  });
}

function forget() {
  Object.assign(state, { entries: [], waiting: [], chosen: null, follow: true });
  drawList();
  drawDetail();
}

function hold() {
  if (!LIVE) return;
  state.paused = !state.paused;
  pause.setAttribute("aria-pressed", String(state.paused));
  connection(state.paused ? "warn" : "good", state.paused ? "paused" : "live");
  if (!state.paused) soon();
}

function connection(kind, text) {
  id("connection").replaceChildren(el("span.dot", { class: kind, "aria-hidden": "true" }), el("span", null, text));
}

function say(text) {
  if (text) id("said").textContent = text;
}

// Colours

const THEMES = { auto: ["◐", "automatic"], light: ["☀", "light"], dark: ["☾", "dark"] };

function theme(next) {
  let now = next;
  // A file may not keep anything.
  try { now = next ?? localStorage.getItem("plugwright-theme"); if (next) localStorage.setItem("plugwright-theme", next); } catch { /* then it does not */ }
  if (!THEMES[now]) now = "auto";
  document.documentElement.dataset.theme = now;
  id("theme").textContent = THEMES[now][0];
  id("theme").setAttribute("aria-label", `Colours: ${THEMES[now][1]}`);
}

function otherTheme() {
  const names = Object.keys(THEMES);
  theme(names[(names.indexOf(document.documentElement.dataset.theme) + 1) % names.length]);
}

// Keys

function help() {
  const keys = (title, ...pairs) => [el("h3", null, title), el("dl.shortcuts", null, pairs.map(([names, what]) => [el("dt", null, names.split(" ").map((name) => el("kbd", null, name))), el("dd", null, what)]))];
  const dialog = id("keys");
  dialog.replaceChildren(
    el("button.button.close", { type: "button", on: { click: () => dialog.close() } }, "Close"), el("h2", { id: "keys-title" }, "Keyboard"),
    ...keys("Move", ["j ↓", "the next one"], ["k ↑", "the one before"], ["g", "the first"], ["G", "the last"], ["Enter", "read it"], ["Esc", "back to the list"]).flat(),
    ...keys("Look", ["/", "filter"], [LIVE ? "1 2 3 4" : "1 2", "views"], ["t", "light, dark, automatic"], ["?", "this help"], ...(LIVE ? [["p", "pause"], ["c", "clear"]] : [])).flat(),
    ...keys("Filter", ...(LIVE ? [["status:4xx", "by status"], ["method:post", "by method"], ["by:check", "who answered; by:upstream"], ["is:changed", "something was changed; is:failed, is:hazard"]] : [["is:failed", "or is:broken, is:passed"]]), ["word", "anywhere in it"]).flat());
  dialog.showModal();
}

function key(event) {
  if (event.ctrlKey || event.metaKey || event.altKey || id("keys").open) return;
  const typing = event.target === input;
  const inTabs = event.target.dataset?.tab;
  const inList = !typing && !inTabs && (event.target === rows || event.target === document.body || event.target === id("main"));
  const named = { j: () => move(1), k: () => move(-1), g: () => move(-Infinity), G: () => move(Infinity), "/": () => { show("requests"); input.focus(); input.select(); }, "?": help, t: otherTheme, p: hold, c: () => LIVE && forget() };
  const list = { ArrowDown: () => move(1), ArrowUp: () => move(-1), Home: () => move(-Infinity), End: () => move(Infinity), PageDown: () => move(10), PageUp: () => move(-10), Enter: open };
  const beside = (by) => { const all = tabs(); const next = all[(all.findIndex(({ name }) => name === state.tab) + by + all.length) % all.length]; show(next.name); id(`tab-${next.name}`).focus(); };
  let action = null;
  if (event.key === "Escape") action = () => { if (typing && input.value) { input.value = ""; filter(); } else if (state.tab !== "requests") { show("requests"); rows.focus(); } else leave(); };
  else if (typing) action = { Enter: () => { if (!visible().some((entry) => entry.key === state.chosen)) move(1); rows.focus(); }, ArrowDown: () => { rows.focus(); move(state.chosen === null ? 1 : 0); } }[event.key];
  else if (inTabs && event.key === "ArrowRight") action = () => beside(1);
  else if (inTabs && event.key === "ArrowLeft") action = () => beside(-1);
  else if (/^[1-9]$/.test(event.key) && tabs()[event.key - 1]) action = () => show(tabs()[event.key - 1].name);
  else if (named[event.key] && (state.tab === "requests" || "/?t".includes(event.key))) action = named[event.key];
  else if (inList && state.tab === "requests") action = list[event.key];
  if (!action) return;
  event.preventDefault();
  action();
}

function filter() {
  state.filter = input.value;
  drawList();
}

function start() {
  theme();
  id("theme").addEventListener("click", otherTheme);
  id("help").addEventListener("click", help);
  input.addEventListener("input", filter);
  if (LIVE) { pause.addEventListener("click", hold); clear.addEventListener("click", forget); }
  document.addEventListener("keydown", key);
  if (!LIVE) {
    const data = JSON.parse(id("data").textContent);
    state.entries = casesOf(data);
    state.known.coverage = data && data.coverage;
    const bad = state.entries.find((entry) => verdictOf(entry.test) !== "passed") ?? state.entries[0];
    state.chosen = bad ? bad.key : null;
    id("connection").replaceChildren(...nodes(shown(data && data.made ? data.made : "")));
  }
  drawPanel();
  drawList();
  drawDetail();
  drawPills();
  if (LIVE) follow();
}

start();
