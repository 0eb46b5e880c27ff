// One trace: what was asked and answered, when each filter had its turn, and what each of them did.

/** Whether a callback did anything that is worth a look. */
function acted(event) {
  return event.failed || list(event.headers).length + list(event.bodies).length + list(event.events).length > 0
    || (event.action && event.action !== "Continue");
}

/** Every event, those within callbacks too. */
function each(events, f) {
  for (const event of list(events)) {
    f(event);
    each(event.events, f);
  }
}

function isRequest(trace) {
  return trace.kind !== "connection";
}

/** What is looked for in, and shown beside, a trace. */
function summary(trace) {
  const found = { logs: 0, calls: 0, hazards: 0, changes: 0 };
  each(trace.events, (event) => {
    if (event.event === "log") found.logs += 1;
    if (event.event === "callout") found.calls += 1;
    if (event.event === "hazard") found.hazards += 1;
    if (event.event === "callback") found.changes += list(event.headers).length + list(event.bodies).length;
  });
  return found;
}

function outcome(trace) {
  if (!isRequest(trace)) return trace.answered_by ? `closed by ${trace.answered_by}` : trace.details;
  if (trace.answered_by) return `answered by ${trace.answered_by}`;
  return trace.upstream ? "from the upstream" : words(trace.details);
}

function statusOf(trace) {
  if (!isRequest(trace)) return el("span.status", { title: "connection" }, "tcp");
  const reset = trace.status === null || trace.status === undefined;
  return el("span.status", { class: grade(trace.status), title: reset ? "reset before there was an answer" : null }, reset ? "reset" : trace.status);
}

function title(trace) {
  return isRequest(trace)
    ? [el("span.method", null, shown(trace.method)), " ", shown(trace.path)]
    : [`connection ${trace.connection}`];
}

function facts(pairs) {
  return el("dl.facts", null, pairs.filter(([, value]) => value !== null && value !== undefined && value !== "")
    .map(([name, value]) => el("div", null, el("dt", null, name), el("dd", null, value instanceof Node ? value : shown(value)))));
}

/** In a suite of chains no time passes while filters run. */
function standsStill(trace) {
  return trace.took_us === 0;
}

/** When everything was; where the clock stood still, one turn after another, each as long as it really took. */
function inTurn(trace) {
  if (!standsStill(trace)) return trace;
  let at = 0;
  const events = list(trace.events).map((event) => {
    const placed = { ...event, at_us: at };
    if (event.event === "callback") at += event.took_us ?? 0;
    return placed;
  });
  return { ...trace, events, took_us: at };
}

/** The whole view. */
function traceView(trace, level = "h2") {
  const still = standsStill(trace);
  const sizes = `${size(trace.request_bytes)} in, ${size(trace.response_bytes)} out`;
  return [
    el("div.head", null, el(level, null, title(trace)), statusOf(trace)),
    facts([
      ["took", still ? null : duration(trace.took_us)],
      ["", outcome(trace)],
      ["details", trace.details],
      ["authority", trace.authority],
      ["protocol", trace.protocol],
      ["bodies", sizes],
      ["upstream", trace.upstream ? trace.upstream.address ?? "the built-in echo" : "not asked"],
      ["connection", trace.connection],
      ["at", clock(trace.started)],
    ]),
    el("section", null, el("h3", null, "Timeline", still && el("span.faint", null, "the suite's clock stood still: the filters' turns, one after another")), waterfall(inTurn(trace))),
    el("section", null, el("h3", null, "What happened"), steps(trace)),
  ];
}

/** Where in the track something is. The style is set by the script, which the policy allows. */
function bit(kind, trace, at, took, titled) {
  const total = Math.max(trace.took_us, 1);
  const left = Math.min(99.5, Math.max(0, (at / total) * 100));
  const width = Math.max(0, Math.min(100 - left, ((took ?? 0) / total) * 100));
  return el(`span.bit${kind}`, { place: { left: `${left}%`, width: `${width}%` }, title: titled });
}

function waterfall(trace) {
  const lanes = list(trace.filters).map((filter) => ({ ...filter, bits: [], calls: 0 }));
  const backwards = (name) => /response|upstream_data/.test(name);
  const calls = (events, lane) => {
    for (const event of list(events)) {
      if (event.event !== "callout") continue;
      lane.calls += 1;
      lane.bits.push(bit(".call", trace, event.at_us, event.took_us ?? trace.took_us - event.at_us, `callout to ${event.cluster}: ${duration(event.took_us)}`));
    }
  };
  for (const event of list(trace.events)) {
    const lane = lanes[event.filter];
    if (!lane) continue;
    if (event.event === "callback") {
      const kind = `${backwards(event.callback) ? ".back" : ""}${event.failed ? ".failed" : ""}`;
      lane.bits.push(bit(kind, trace, event.at_us, event.took_us, `${event.callback}: ${duration(event.took_us)}`));
      calls(event.events, lane);
    } else calls([event], lane);
  }
  const idle = lanes.filter((lane) => !lane.bits.length && !lane.skipped);
  const busy = lanes.filter((lane) => lane.bits.length || lane.skipped);
  const lane = (name, bits, self, quiet) => el("li.lane", null,
    el("span.who", { class: quiet ? "quiet" : "", title: name }, shown(name)), el("span.track", { "aria-hidden": "true" }, bits), el("span.self.num", null, self));
  const rows = busy.map(({ name, bits, self_us: self, skipped }) => lane(name, bits, skipped ? "skipped" : duration(self), skipped));
  if (trace.upstream) {
    const answer = list(trace.events).find((event) => event.event === "message" && event.from === "upstream");
    const end = trace.upstream.end_us ?? trace.upstream.headers_us;
    const start = answer && trace.upstream.headers_us !== null ? answer.at_us - trace.upstream.headers_us : trace.took_us - (end ?? 0);
    rows.push(lane("upstream", [bit(".upstream", trace, start, end ?? trace.took_us - start, `upstream: ${duration(end)}`)], duration(end)));
  }
  const ticks = [0, 0.25, 0.5, 0.75, 1].map((part) => el("span.num", null, part ? duration(trace.took_us * part) : "0"));
  const called = busy.some((one) => one.calls);
  return el("div.waterfall", null,
    el("div.axis", { "aria-hidden": "true" }, el("span"), el("span.track", null, ticks), el("span")),
    el("ul", { "aria-label": "Time in each filter" }, rows),
    el("div.legend", null, el("span", null, "request"), el("span.back", null, "response"), trace.upstream && el("span.upstream", null, "upstream"), called && el("span.call", null, "callout"),
      idle.length > 0 && el("em", { title: idle.map((one) => one.name).join(", ") }, `${count(idle.length, "filter")} had nothing to do`)));
}

function steps(trace) {
  const rows = list(trace.events).map((event) => step(trace, event));
  if (trace.omitted) rows.push(el("li.step.warn", null, el("span.at"), el("div.body", null, `${count(trace.omitted, "further event")} left out of the trace`)));
  if (!rows.length) rows.push(el("li.step", null, el("span.at"), el("div.body.soft", null, "Nothing was recorded.")));
  return el("ol.steps", null, rows);
}

function step(trace, event) {
  const { kind, body } = described(trace, event);
  return el("li.step", { class: kind }, el("span.at.num", null, standsStill(trace) ? null : duration(event.at_us)), el("div.body", null, body));
}

function line(...parts) {
  return el("div.line", null, parts);
}

/** The filter that an event is of. */
function who(trace, event) {
  const filter = list(trace.filters)[event.filter];
  return filter ? el("span.name", null, shown(filter.name)) : null;
}

function described(trace, event) {
  switch (event.event) {
    case "message": {
      const from = { client: "the client", upstream: "the upstream", proxy: "the proxy itself" }[event.from] ?? event.from;
      const headers = list(event.headers);
      return {
        kind: "ours",
        body: [
          line(el("span.name", null, `${event.direction} headers`), el("span.soft", null, `from ${from}`), event.end_of_stream && el("span.tag", null, "no body follows")),
          el("details.card", { open: headers.length <= 16 }, el("summary", null, count(headers.length, "header")), headerTable(headers)),
        ],
      };
    }
    case "callback": return callback(trace, event);
    case "log": return { kind: grave(event.level), body: [line(who(trace, event), el("span.callback", null, "logged")), el("div.card", null, logLine(event))] };
    case "callout": return { kind: "acted", body: [line(who(trace, event)), calloutCard(event)] };
    case "local_reply": return { kind: "warn", body: localReply(trace, event) };
    case "hazard": return { kind: "bad", body: [line(who(trace, event)), hazardCard(event)] };
    case "reset": return { kind: "bad", body: [line(el("span.name", null, "reset"), el("span.soft", null, shown(event.details)))] };
    default: return { kind: "", body: [line(el("span.name", null, shown(event.event)))] };
  }
}

function callback(trace, event) {
  const within = list(event.events);
  const does = acted(event);
  const worst = event.failed || within.some((one) => one.event === "hazard") ? "bad" : does ? "acted" : "quiet";
  const pauses = event.action && event.action !== "Continue";
  return {
    kind: worst,
    body: [
      line(who(trace, event), el("code.callback", null, event.callback),
        pauses && el("span.tag.accent", { title: "what the callback answered" }, event.action),
        event.failed && el("span.tag.bad", null, "trapped"),
        event.bytes !== null && event.bytes !== undefined && el("span.faint", null, `saw ${size(event.bytes)}`),
        event.end_of_stream && el("span.faint", null, "end of stream"),
        el("span.faint.num", null, duration(event.took_us))),
      within.filter((one) => one.event === "log").length > 0 && el("div.card", null, within.filter((one) => one.event === "log").map(logLine)),
      within.filter((one) => one.event === "callout").map(calloutCard),
      headerChanges(event.headers),
      bodyChanges(event.bodies),
      within.filter((one) => one.event === "local_reply").map((one) => localReply(trace, one)),
      within.filter((one) => one.event === "hazard").map(hazardCard),
    ],
  };
}

function headerTable(headers) {
  return el("dl.headers", null, headers.map(([name, value]) =>
    el("div", null, el("dt", { class: name.startsWith(":") ? "pseudo" : "" }, shown(name)), el("dd", null, clipped(value)))));
}

function grave(level) {
  if (level === "warning" || level === "warn") return "warn";
  return level === "error" || level === "critical" ? "bad" : "";
}

function logLine(event) {
  return el("div.log", { class: grave(event.level) }, el("span.level", null, event.level), clipped(event.message));
}

function calloutCard(event) {
  const answer = event.failure ? el("span.tag.bad", null, event.failure)
    : event.status === null || event.status === undefined ? el("span.tag.warn", null, "no answer before the end")
      : el("span.status", { class: event.kind === "http" ? grade(event.status) : event.status === 0 ? "good" : "warn" }, event.kind === "http" ? event.status : `grpc ${event.status}`);
  return el("div.card.said", null, line(el("span.tag", null, "callout"), answer, el("span.mono", null, shown(event.method), " ", clipped(event.path)),
    el("span.soft", null, "to ", shown(event.cluster)), el("span.faint.num", null, event.took_us === null ? "" : `after ${duration(event.took_us)}`), event.bytes > 0 && el("span.faint", null, `${size(event.bytes)} sent`)));
}

function localReply(trace, event) {
  return [
    line(who(trace, event), el("span.callback", null, "answered"), el("span.status", { class: grade(event.status) }, event.status), el("span.faint", null, shown(event.details))),
    event.body && event.body.excerpt && el("div.card", null, el("div.cap", null, `body: ${size(event.body.bytes)}`, event.body.cut && " (its beginning)"), el("div.said.mono", null, clipped(event.body.excerpt))),
  ];
}

function hazardCard(event) {
  const place = [event.callback, event.hostcall].filter(Boolean).join(", ");
  return el("div.card.said", null, line(el("span.tag.bad", null, "hazard"), el("span.name", null, words(event.kind)), el("code.soft", null, shown(place))), el("div", null, clipped(event.explanation)));
}
