// The other views: the chain with its reasons, configurations against their schemas, builds, test cases.

function emptiness(heading, text, code) {
  return el("div.empty", null, el("h2", null, heading), el("p", null, text), code && el("pre", null, shown(code)));
}

function chainView(chain) {
  if (!chain) return [emptiness("No chain yet", "It is shown once the harness serves one.")];
  const { proxy } = chain;
  return [
    el("h2", null, `${words(proxy.kind)} `, shown(`${proxy.namespace}/${proxy.name}`)),
    el("p.soft", null, "The filters in the order in which requests meet them, and why each is where it is."),
    el("ol.chain", null, list(chain.filters).map((filter) =>
      el("li", { class: filter.kind },
        el("div", null,
          line(el("span.name", null, shown(filter.title)), el("span.tag", { class: filter.kind === "builtin" ? "" : "accent" }, filter.kind === "builtin" ? "the proxy's own" : filter.kind),
            filter.network && el("span.tag", null, "in front of HTTP"), filter.phase && el("span.tag", null, shown(filter.phase)),
            filter.priority !== null && filter.priority !== undefined && el("span.tag", null, `priority ${filter.priority}`),
            filter.fail && filter.fail !== "FAIL_CLOSE" && el("span.tag.warn", null, shown(filter.fail))),
          el("p.reason", null, shown(filter.reason)),
          facts([["url", filter.url], ["module", filter.module], ["from", filter.origin], ["root id", filter.root_id], ["variables", list(filter.env).join(", ")]]))))),
    list(chain.left_out).length > 0 && el("section", null, el("h3", null, "Not in the chain"),
      el("ul.out", null, chain.left_out.map((out) => el("li", null, line(el("span.name", null, shown(out.resource))), el("p.reason.soft", null, shown(out.reason)))))),
    facts([["upstream", chain.upstream], ...list(chain.clusters).map(([name, url]) => [name, url])]),
  ];
}

function configurationView(chain, checks) {
  const extensions = list(chain && chain.filters).filter((filter) => filter.kind === "wasm");
  if (!extensions.length) return [emptiness("No plugin in the chain", "Each plugin's configuration is shown here, held against the schema that comes with it.")];
  return [el("h2", null, "Configuration"), el("p.soft", null, "As each plugin gets it, held against the schema that comes with it."),
    extensions.map((filter) => {
      const check = checks && checks[filter.id];
      const wrong = list(check && check.problems);
      const verdict = !check ? ["tag", "not checked against a schema"] : check.bad_schema ? ["tag.warn", "its schema cannot be used"] : wrong.length ? ["tag.bad", count(wrong.length, "problem")] : ["tag.good", "fits its schema"];
      return el("article.block", null, el("header", null, el("h3", null, shown(filter.title)), el(`span.${verdict[0]}`, null, verdict[1])),
        check && check.bad_schema && el("div.in.any", null, shown(check.bad_schema)),
        wrong.length > 0 && el("div.in", null, el("ul.problems", null, wrong.map((problem) =>
          el("li", null, el("div", null, el("code", null, shown(problem.path || "the whole")), " ", shown(problem.what), problem.fix && el("div.soft", null, shown(problem.fix))))))),
        el("div.in", null, filter.config ? el("pre", { tabindex: "0", "aria-label": `configuration of ${filter.title}` }, shown(filter.config)) : el("span.soft", null, "It has no configuration.")));
    })];
}

function wrongConfigurations(checks) {
  return Object.values(checks || {}).reduce((sum, check) => sum + list(check.problems).length + (check.bad_schema ? 1 : 0), 0);
}

const BUILD = { building: ["busy", "building…"], failed: ["bad", "build failed"], refused: ["bad", "not served"], served: ["good", "served"] };
const TESTS = { running: ["busy", "testing…"], passed: ["good", "tests pass"], failed: ["bad", "tests fail"] };

function buildView(build, tests) {
  if (!build) return [emptiness("Nothing built yet", "What was built and tested last is shown here.")];
  const [kind, word] = BUILD[build.state] ?? ["", build.state];
  const grown = build.after - build.before;
  return [
    el("h2", null, shown(build.plugin), " ", el("span.tag", { class: kind === "busy" ? "warn" : kind }, word)),
    el("p.soft", null, list(build.files).length ? ["Changed: ", shown(build.files.join(", "))] : "The first build."),
    el("dl.figures", null,
      [["Built in", build.build_ms === undefined ? null : duration(build.build_ms * 1000)], ["Swapped in", build.swap_ms === undefined || !list(build.changes).length ? null : duration(build.swap_ms * 1000)],
        ["Module", build.after ? [size(build.after), build.before && grown ? el("small", null, ` ${grown > 0 ? "+" : "−"}${size(Math.abs(grown))}`) : ""] : null]]
        .filter(([, value]) => value !== null).map(([name, value]) => el("div", null, el("dt", null, name), el("dd", null, value)))),
    build.error && el("div.block", null, el("header", null, el("h3", null, build.state === "failed" ? "The compiler says" : "Why it is not served"), el("span.soft", null, "what was served before still is")), el("div.in", null, el("pre.code", { tabindex: "0", "aria-label": "errors" }, shown(build.error)))),
    build.state === "served" && list(build.files).length > 0 && !list(build.changes).length && el("p.soft", null, "Nothing changes in the chain."),
    list(build.changes).length > 0 && el("div.block", null, el("header", null, el("h3", null, "What changed in the chain")), el("div.in", null, el("pre", null, shown(build.changes.join("\n"))))),
    tests && el("div.block", null, el("header", null, el("h3", null, "Tests"), el("span.tag", { class: (TESTS[tests.state] ?? [""])[0].replace("busy", "warn") }, (TESTS[tests.state] ?? ["", tests.state])[1]),
      tests.state !== "running" && el("span.soft", null, `${tests.passed} passed, ${tests.failed} failed, ${duration(tests.took_ms * 1000)}`)),
    tests.output && el("div.in", null, el("pre.code", { tabindex: "0", "aria-label": "output of the tests" }, shown(tests.output)))),
  ];
}

/** The time of a test: Rust's durations are seconds and nanoseconds. */
function taken(took) {
  return took && typeof took === "object" ? took.secs * 1e6 + took.nanos / 1000 : null;
}

/** `passed`, `failed`, `broken`. */
function kindOf(verdict) {
  return typeof verdict === "string" ? verdict : Object.keys(verdict ?? { broken: "" })[0];
}

/** The same, of the harness and, where it ran there as well, of Envoy. */
function verdictOf(test) {
  const ours = kindOf(test.verdict);
  return ours === "passed" && test.envoy && test.envoy.ran ? kindOf(test.envoy.ran.verdict) : ours;
}

const VERDICTS = { passed: ["good", "pass"], failed: ["bad", "fail"], broken: ["warn", "error"] };

function caseView(suite, test) {
  const verdict = verdictOf(test);
  const [kind, word] = VERDICTS[verdict] ?? ["", verdict];
  const { ran, not_run: reason } = test.envoy ?? {};
  return [
    el("div.head", null, el("h2", null, shown(test.name)), el("span.status", { class: kind }, word)),
    facts([["suite", suite.file], ["took", duration(taken(test.took))], ["median", test.measured ? `${duration(taken(test.measured.median))} of ${test.measured.iterations}` : null], ["traces", list(test.traces).length || null], ["in Envoy", ran ? duration(taken(ran.took)) : reason ? "not run" : null]]),
    reason && el("div.card.said", null, "Not run in Envoy: ", clipped(reason)),
    ran && el("section", null, heading("Envoy", ran.verdict), verdictView(ran), list(ran.not_compared).map((what) => el("div.card.said", null, "Not compared in Envoy: ", clipped(what)))),
    ran && heading("Harness", test.verdict),
    verdictView(test),
    list(test.traces).map((trace, at) => el("section", null, el("div.h3", null, `Request ${at + 1}`), traceView(trace, "h3"))),
  ];
}

function heading(who, verdict) {
  const [kind, word] = VERDICTS[kindOf(verdict)] ?? ["", kindOf(verdict)];
  return el("div.h3", null, `${who} `, el("span.status", { class: kind }, word));
}

/** What was not as expected, and the log. */
function verdictView(test) {
  const verdict = kindOf(test.verdict);
  const mismatches = verdict === "failed" ? list(test.verdict.failed) : [];
  const logs = list(test.logs);
  return [
    verdict === "broken" && el("div.card.said", null, clipped(test.verdict.broken)),
    mismatches.length > 0 && el("section", null, el("h3", null, count(mismatches.length, "expectation"), " not met", el("span.faint", null, "− expected, + seen")), mismatches.map((mismatch) =>
      el("div.card", null, el("div.cap", null, el("strong", null, shown(mismatch.what)), " ", el("code.faint", null, shown(mismatch.path))),
        el("div.diff", null, mismatch.actual === null || mismatch.actual === undefined
          ? [sign("del", "−", "expected", null, clipped(mismatch.expected)), sign("gap", "", "", null, el("span.gap", null, "there was nothing"))]
          : lines(mismatch.expected, mismatch.actual, ["expected", "seen"]))))),
    logs.length > 0 && el("section", null, el("h3", null, "Logs"), el("div.card.said.mono", null, logs.map((log) => el("div", null, clipped(log))))),
  ];
}

/** How much is enough to be called good is for the reader to say; only all of it is. */
function coverageView(all) {
  const percent = (summary) => (typeof summary.percent === "number" ? `${(Math.floor(summary.percent * 10) / 10).toFixed(1)} %` : "none");
  return [el("h2", null, "Coverage"), el("p.soft", null, "Which functions of the plugins the tests have reached."),
    all.map((one) => {
      const functions = list(one.functions);
      const missed = functions.filter((each) => !each.reached);
      const place = (each) => (each.file ? `${each.file}:${each.line}` : each.origin ? `of ${each.origin}` : `function ${each.index}`);
      const others = list(one.others).reduce((sum, group) => ({ total: sum.total + group.total, reached: sum.reached + group.reached }), { total: 0, reached: 0 });
      return el("article.block", null, el("header", null, el("h3", null, shown(one.plugin)),
        one.problem ? el("span.tag.warn", null, "none") : el("span.tag", { class: missed.length ? "" : "good" }, percent(one.summary)), one.own && el("span.soft", null, shown(one.own))),
      one.problem && el("div.in", null, clipped(one.problem)),
      !one.problem && el("div.in", null, facts([["functions", `${one.summary.reached} of ${one.summary.total}`], ["lines", one.lines ? `${one.lines.reached} of ${one.lines.total}` : null], ["of others", others.total ? `${others.reached} of ${others.total}` : null]])),
      missed.length > 0 && el("div.in", null, el("h4", null, "Not reached"), el("ul.missed.mono", null, missed.map((each) => el("li", null, clipped(each.name), " ", el("span.faint", null, shown(place(each))))))));
    })];
}
