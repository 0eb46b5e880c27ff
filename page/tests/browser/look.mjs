// Looks at the trace page in a real browser. Run by `xtask/tests/page.rs`, which has started what is looked at:
// node look.mjs PAGE LISTENER REPORT FOLDER
// It says what is not as it should be, ends with 1 then, and leaves screenshots in the folder.

import { readFileSync } from "node:fs";
import net from "node:net";
import { createRequire } from "node:module";
import { pathToFileURL } from "node:url";

const require = createRequire(`${process.cwd()}/`);
const { chromium } = require("playwright-core");
const axe = readFileSync(require.resolve("axe-core/axe.min.js"), "utf8");
const [page, listener, report, folder] = process.argv.slice(2);
const HOSTILE = "<script>alert(1)</script><img src=x onerror=alert(1)>";

const wrong = [];
const check = (what, fine, more = "") => {
  if (!fine) wrong.push(`${what} ${more}`);
};

// As it comes to the wire, which fetch would not let through.
function raw(path, headers) {
  const { hostname, port } = new URL(listener);
  return new Promise((resolve, reject) => {
    const socket = net.connect(Number(port), hostname, () => {
      const head = Buffer.from(`GET ${path} HTTP/1.1\r\nhost: a.example\r\nconnection: close\r\n`);
      socket.write(Buffer.concat([head, ...headers.map(([name, value]) => Buffer.concat([Buffer.from(`${name}: `), Buffer.from(value), Buffer.from("\r\n")])), Buffer.from("\r\n")]));
    });
    socket.on("error", reject).on("close", resolve).resume();
  });
}

async function opened(browser, url, options) {
  const context = await browser.newContext(options);
  const tab = await context.newPage();
  const said = [];
  tab.on("console", (message) => { if (["error", "warning"].includes(message.type())) said.push(message.text()); });
  tab.on("pageerror", (error) => said.push(String(error)));
  tab.on("dialog", (dialog) => { said.push(`a dialog: ${dialog.message()}`); dialog.dismiss(); });
  tab.on("request", (request) => { const to = request.url(); if (!to.startsWith(new URL(url).origin === "null" ? "file:" : new URL(url).origin) && !to.startsWith("data:")) said.push(`a request to ${to}`); });
  await tab.addInitScript(() => document.addEventListener("securitypolicyviolation", (event) => console.error(`policy: ${event.violatedDirective} ${event.blockedURI}`)));
  await tab.goto(url);
  return { tab, said, done: async (what) => { check(`${what}: the console`, said.length === 0, said.join(" | ")); await context.close(); } };
}

async function accessible(tab, what) {
  // The policy keeps scripts out, this one too: the driver's own world is not asked.
  const session = await tab.context().newCDPSession(tab);
  const { frameTree } = await session.send("Page.getFrameTree");
  const { executionContextId } = await session.send("Page.createIsolatedWorld", { frameId: frameTree.frame.id, worldName: "axe", grantUniveralAccess: true });
  const evaluate = async (expression) => {
    const { result, exceptionDetails } = await session.send("Runtime.evaluate", { expression, contextId: executionContextId, awaitPromise: true, returnByValue: true });
    if (exceptionDetails) throw new Error(exceptionDetails.exception?.description ?? exceptionDetails.text);
    return result.value;
  };
  await evaluate(axe);
  const found = await evaluate("axe.run(document, { resultTypes: ['violations'] }).then((r) => r.violations.map((v) => `${v.id}: ${v.nodes.slice(0, 3).map((n) => n.target + ' ' + n.any.map((a) => a.message).join('; ')).join(' / ')}`))");
  check(`${what}: accessibility`, found.length === 0, found.join("\n    "));
  await session.detach();
}

const shot = (tab, name) => tab.screenshot({ path: `${folder}/${name}.png` });
const fits = async (tab, what) => check(`${what}: nothing is wider than the window`, await tab.evaluate(() => document.documentElement.scrollWidth <= innerWidth));
const chosen = (tab) => tab.locator(".row[aria-selected=true]").innerText().catch(() => "");

async function live(browser) {
  const { tab, done } = await opened(browser, page, { viewport: { width: 1280, height: 800 }, colorScheme: "light" });
  await tab.getByText("live", { exact: true }).waitFor();
  await tab.getByText("No requests yet").waitFor();
  await shot(tab, "empty");
  await accessible(tab, "empty");
  await fetch(`${listener}/productpage?user=jane`, { method: "POST", body: "hello", headers: { "x-long": "v".repeat(3000) } }).then((response) => response.text());
  await tab.locator(".row").first().waitFor();
  check("the newest is chosen", (await chosen(tab)).includes("/productpage"));
  check("what a filter added is shown", await tab.locator(".diff .add .key", { hasText: "x-added" }).count() > 0);
  check("what a filter changed is shown", await tab.locator(".diff .del .key", { hasText: "x-long" }).count() === 1);
  check("long values are cut", await tab.locator(".more").count() > 0);
  check("its logs are shown", await tab.locator(".log", { hasText: "seen" }).count() > 0);
  await shot(tab, "request-light");
  await accessible(tab, "a request");
  await raw("/hostile", [["x-hostile", HOSTILE], ["x-bytes", [0x61, 0xff, 0xfe, 0x62]], ["x-lines", "a\u2028b\u202ec\u200b"], ["authorization", "Bearer abcdefghijkl"]]);
  await tab.locator(".row", { hasText: "/hostile" }).waitFor();
  await tab.keyboard.press("g");
  const text = await tab.locator("#detail").innerText();
  check("markup is text", text.includes(HOSTILE), text.slice(0, 600));
  check("what cannot be seen is shown by its number", text.includes("\\u{2028}") && text.includes("\\u{202e}") && text.includes("\\u{fffd}"));
  check("secrets are masked", text.includes("<redacted>") && !text.includes("abcdefghijkl"));
  check("nothing became an element", await tab.locator("main script, main img").count() === 0);
  await shot(tab, "hostile");
  for (let at = 0; at < 40; at += 1) await fetch(`${listener}/item/${at}${at % 9 === 8 ? "?deny" : ""}`).then((response) => response.text());
  await tab.locator(".row", { hasText: "/item/39" }).waitFor();
  // The keys
  await tab.keyboard.press("g");
  const newest = await chosen(tab);
  await tab.keyboard.press("j");
  await tab.keyboard.press("ArrowDown");
  check("j and the arrows move", (await chosen(tab)).includes("/item/37"), await chosen(tab));
  await tab.keyboard.press("k");
  check("k moves back", (await chosen(tab)).includes("/item/38"));
  await tab.keyboard.press("G");
  check("G is the last", (await chosen(tab)).includes("/productpage"));
  await tab.keyboard.press("g");
  check("g is the first", (await chosen(tab)) === newest);
  await tab.keyboard.press("/");
  await tab.keyboard.type("status:4xx");
  check("the filter filters", await tab.locator(".row").count() === 4, String(await tab.locator(".row").count()));
  await tab.keyboard.press("Enter");
  check("and its first is chosen", (await chosen(tab)).includes("403"));
  await shot(tab, "filtered");
  await tab.keyboard.press("Enter");
  check("Enter goes to the details", await tab.evaluate(() => document.activeElement.id) === "detail");
  await tab.keyboard.press("Escape");
  check("Esc comes back", await tab.evaluate(() => document.activeElement.id) === "rows");
  await tab.keyboard.press("/");
  await tab.keyboard.type(" nothing-has-this");
  await tab.getByText("Nothing matches").waitFor();
  await tab.keyboard.press("Escape");
  check("Esc empties the filter", await tab.locator(".row").count() === 42);
  await tab.keyboard.press("Escape");
  await tab.keyboard.press("?");
  check("? has the keys", await tab.locator("dialog[open]").count() === 1);
  await shot(tab, "help");
  await accessible(tab, "the help");
  await tab.keyboard.press("Escape");
  check("Esc closes it", await tab.locator("dialog[open]").count() === 0);
  await shot(tab, "many");
  await tab.keyboard.press("2");
  check("the chain has its reasons", (await tab.locator("#panel-chain").innerText()).includes("no phase, no priority"), (await tab.locator("#panel-chain").innerText()).slice(0, 400));
  await shot(tab, "chain");
  await accessible(tab, "the chain");
  await tab.keyboard.press("3");
  await shot(tab, "configuration");
  await accessible(tab, "configurations");
  await tab.keyboard.press("1");
  await fits(tab, "wide");
  await done("live");
}

async function others(browser) {
  const dark = await opened(browser, page, { viewport: { width: 1280, height: 800 }, colorScheme: "dark" });
  await dark.tab.locator(".row").first().waitFor();
  await dark.tab.keyboard.press("G");
  const background = () => dark.tab.evaluate(() => getComputedStyle(document.body).backgroundColor);
  const before = await background();
  await shot(dark.tab, "request-dark");
  await accessible(dark.tab, "dark");
  await dark.tab.keyboard.press("t");
  check("t makes it light", (await background()) !== before);
  await dark.done("dark");

  const narrow = await opened(browser, page, { viewport: { width: 390, height: 780 }, colorScheme: "light", hasTouch: true });
  await narrow.tab.locator(".row").first().waitFor();
  await fits(narrow.tab, "narrow list");
  await shot(narrow.tab, "narrow-list");
  await narrow.tab.locator(".row", { hasText: "/hostile" }).click();
  await fits(narrow.tab, "narrow detail");
  await shot(narrow.tab, "narrow-detail");
  await accessible(narrow.tab, "narrow");
  await narrow.tab.locator(".return").click();
  check("back comes back", await narrow.tab.locator(".list").isVisible());
  await narrow.tab.locator("#tab-chain").click();
  await fits(narrow.tab, "narrow chain");
  await shot(narrow.tab, "narrow-chain");
  await narrow.done("narrow");
}

async function file(browser) {
  for (const [name, options] of [["report-light", { viewport: { width: 1280, height: 800 }, colorScheme: "light" }], ["report-dark", { viewport: { width: 1280, height: 800 }, colorScheme: "dark" }], ["report-narrow", { viewport: { width: 390, height: 780 } }]]) {
    const { tab, done } = await opened(browser, pathToFileURL(report).href, options);
    check(`${name}: the first that failed is chosen`, (await chosen(tab)).includes("fail"), await chosen(tab));
    if (name === "report-narrow") { await shot(tab, name); await tab.locator(".row[aria-selected=true]").click(); await shot(tab, "report-narrow-case"); }
    check(`${name}: what differs is shown`, await tab.locator(".diff ins").count() > 0);
    check(`${name}: markup is text`, (await tab.locator("#detail").innerText()).includes(HOSTILE));
    const sides = await tab.locator("#detail .h3").allInnerTexts();
    check(`${name}: both proxies are shown`, sides.slice(0, 2).map((side) => side.split(/\s/)[0]).join() === "Envoy,Harness", sides.join());
    check(`${name}: nothing became an element`, await tab.locator("main script, main img").count() === 0);
    await fits(tab, name);
    if (name !== "report-narrow") await shot(tab, name);
    await accessible(tab, name);
    if (name !== "report-narrow") {
      await tab.locator(".row").first().click();
      const detail = await tab.locator("#detail").innerText();
      check(`${name}: where no time passed, turns are drawn one after another`, detail.includes("clock stood still") && !detail.includes("0.0 µs"), detail);
      const left = await tab.locator(".waterfall .track .bit").evaluateAll((bits) => bits.map((bit) => bit.style.left));
      check(`${name}: they are not all at the beginning`, left.join() === "0%,75%", left.join());
      await shot(tab, `${name}-still`);
    }
    await tab.locator("#tab-coverage").click();
    check(`${name}: what was not reached is listed, as text`, (await tab.locator("#page").innerText()).includes(`basic_auth::${HOSTILE}`));
    check(`${name}: how much was is said`, (await tab.locator("#page").innerText()).includes("66.6 %"));
    await fits(tab, `${name} coverage`);
    await shot(tab, `${name}-coverage`);
    await accessible(tab, `${name} coverage`);
    await done(name);
  }
}

const browser = await chromium.launch({ executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium", args: ["--no-sandbox"] });
try {
  await live(browser);
  await others(browser);
  await file(browser);
} catch (error) {
  wrong.push(String(error.stack ?? error));
} finally {
  await browser.close();
}
if (wrong.length) {
  console.log(wrong.map((what) => `- ${what}`).join("\n"));
  process.exit(1);
}
console.log("fine");
