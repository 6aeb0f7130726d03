// Looks at pages in headless Chromium and says what is wrong with them; exit code 1 if anything is.
//   node check.mjs FOLDER-WITH-NODE-MODULES PAGE.html…
// Checks: axe-core finds no serious violation (1,280 and 390 px wide, light and dark), the page asks
// for nothing, its content policy is kept, it reads without JavaScript, nothing but tables scrolls
// sideways, numbers equal those of the summary.json beside it, and what is interactive works by
// keyboard and pointer.
import { createRequire } from "node:module";
import { existsSync, readFileSync } from "node:fs";
import { dirname, join, resolve } from "node:path";
import { pathToFileURL } from "node:url";

const [modules, ...pages] = process.argv.slice(2);
const require = createRequire(join(resolve(modules), "package.json"));
const puppeteer = require("puppeteer-core");
const axe = readFileSync(require.resolve("axe-core/axe.min.js"), "utf8");
const executablePath = process.env.CHROMIUM ?? "/usr/bin/chromium";
const browser = await puppeteer.launch({ executablePath, args: ["--no-sandbox"] });
const wrong = [];

// "3.68 min" in seconds, "78 %" as a share; null where there is no number.
function number(text) {
  const found = /^[≥<]?\s*([\d.,]+)\*?\s*(h|min|s|ms|us|µs|ns|%)?/.exec(text.trim());
  if (!found) return null;
  const unit = { h: 3600, min: 60, s: 1, ms: 1e-3, us: 1e-6, "µs": 1e-6, ns: 1e-9, "%": 0.01 }[found[2]] ?? 1;
  return Number(found[1].replaceAll(",", "")) * unit;
}
function near(text, value) {
  if (value === null || value === undefined) return number(text) === null;
  const said = number(text);
  return said !== null && Math.abs(said - value) <= Math.max(0.006 * Math.abs(value), 6e-4 * (text.includes("%") ? 10 : 1e-6));
}

async function numbers(page, summary, say) {
  const table = await page.$$eval("#numbers ~ .scroll table", (tables) =>
    [...tables[0].rows].map((row) => [...row.cells].map((cell) => cell.innerText)));
  const groups = [...summary.classes.map((each) => each.numbers), summary.run];
  const measures = { "TTFT": "ttft", "TPOT": "tpot", "E2E": "e2e", "queue time": "queue_time", "prefill": "prefill_time", "decode": "decode_time" };
  let compared = 0;
  for (const [name, ...cells] of table.slice(1)) {
    const [, measure, quantile] = /^(.*) (mean|p50|p99)$/.exec(name) ?? [];
    if (!measures[measure]) continue;
    cells.forEach((cell, group) => {
      const value = groups[group].latency[measures[measure]][quantile].value;
      if (cell === "not observed") return;
      compared += 1;
      if (!near(cell, value)) say(`${name} of column ${group}: the page says ${cell}, summary.json ${value}`);
    });
  }
  const rows = await page.$$eval("table.classes tbody tr", (rows) => rows.map((row) => [...row.cells].map((cell) => cell.innerText)));
  rows.forEach(([name, , offered, good], index) => {
    const each = summary.classes[index];
    compared += 2;
    if (name !== each.name || number(offered) !== each.numbers.counts.offered) say(`${name} offered: ${offered}`);
    if (!near(good, each.numbers.slo_attainment.value)) say(`${name} good: ${good}, not ${each.numbers.slo_attainment.value}`);
  });
  const card = (id) => page.$eval(`#card-${id} .big`, (node) => node.innerText);
  for (const [id, value] of [["goodput", summary.run.goodput.value], ["attainment", summary.run.slo_attainment.value]]) {
    compared += 1;
    if (!near(await card(id), value)) say(`card ${id}: ${await card(id)}, not ${value}`);
  }
  const verdict = await page.$eval(".verdict", (node) => node.innerText.replace(/\s+/g, " "));
  if (!summary.verdict_line.split(" ").every((word) => verdict.includes(word))) say(`the verdict is not ${summary.verdict_line}`);
  if (summary.partial !== verdict.includes("PARTIAL")) say("PARTIAL is not where it belongs");
  return compared;
}

async function interaction(page, say) {
  const stretch = () => page.$eval("#explore-blame h4", (node) => node.textContent);
  const all = await stretch();
  await page.$eval("#explore svg[tabindex]", (plot) => plot.focus());
  for (let step = 0; step < 5; step++) await page.keyboard.press("ArrowRight");
  if (!(await page.$eval("#explore output", (node) => node.textContent)).includes("waiting")) say("arrow keys read no value");
  await page.keyboard.down("Shift");
  for (let step = 0; step < 12; step++) await page.keyboard.press("ArrowRight");
  await page.keyboard.up("Shift");
  if (!(await page.$("#picked")) || (await stretch()) === all) say("Shift with the arrow keys picks no stretch");
  const ends = () => page.$$eval("#explore svg[tabindex] text", (texts) => texts.at(-1).textContent);
  const wide = await ends();
  await page.keyboard.press("Enter");
  if ((await ends()) === wide) say("Enter does not zoom");
  await page.keyboard.press("Escape");
  if ((await ends()) !== wide || (await stretch()) !== all) say("Escape does not show everything");
  const paths = () => page.$$eval("#explore svg[tabindex] path[stroke-width]", (paths) => paths.length);
  const before = await paths();
  await page.focus("#explore input");
  await page.keyboard.press("Space");
  if ((await paths()) !== before - 2) say("a class cannot be switched off by keyboard");
  await page.keyboard.press("Space");
  const box = await (await page.$("#explore svg[tabindex]")).boundingBox();
  const at = (part) => [box.x + part * box.width, box.y + 60];
  await page.mouse.move(...at(0.3));
  await page.mouse.down();
  await page.mouse.move(...at(0.5), { steps: 4 });
  await page.mouse.up();
  if (!(await page.$("#picked"))) say("dragging picks no stretch");
  const link = await page.$("#slowest a");
  if (link) {
    await link.press("Enter");
    if (!(await page.$("#picked")) || (await ends()) === wide) say("a slow request does not lead to its time");
  }
}

async function check(path) {
  const say = (what) => wrong.push(`${path}: ${what}`);
  const url = pathToFileURL(resolve(path)).href;
  const page = await browser.newPage();
  page.on("request", (request) => {
    if (!request.url().startsWith("data:") && request.url().split("#")[0] !== url) say(`it asks for ${request.url()}`);
  });
  page.on("console", (message) => { if (message.type() === "error") say(`console: ${message.text()}`); });
  page.on("pageerror", (error) => say(`script: ${error}`));
  let compared = 0;
  for (const width of [1280, 390]) {
    for (const scheme of ["light", "dark"]) {
      await page.setViewport({ width, height: 800 });
      await page.emulateMediaFeatures([{ name: "prefers-color-scheme", value: scheme }]);
      await page.goto(url);
      await page.$$eval("details", (all) => all.forEach((details) => { details.open = true; }));
      const over = await page.evaluate(() => document.documentElement.scrollWidth - innerWidth);
      if (over > 0) say(`${width} px: it is ${over} px too wide`);
      await page.evaluate(axe);
      const found = await page.evaluate(() => window.axe.run(document, { resultTypes: ["violations"] }));
      for (const one of found.violations.filter((one) => ["serious", "critical"].includes(one.impact))) {
        say(`${width} px, ${scheme}: ${one.id}: ${one.help}: ${one.nodes.length} times, such as ${one.nodes[0].html.slice(0, 160)}`);
      }
    }
  }
  await page.setViewport({ width: 1280, height: 800 });
  await page.goto(url);
  const summary = join(dirname(path), "summary.json");
  if (existsSync(summary) && (await page.$("#numbers"))) compared = await numbers(page, JSON.parse(readFileSync(summary, "utf8")), say);
  if (await page.$("#explore svg[tabindex]")) await interaction(page, say);
  await page.setJavaScriptEnabled(false);
  await page.goto(url);
  const plain = await page.$$eval("figure", (figures) => figures.every((figure) => figure.querySelector("svg[role=img] > title") && figure.querySelector("table th")));
  if (!plain) say("without JavaScript a figure lacks its drawing, its title or its table");
  await page.close();
  console.log(`${path}: looked at; ${compared} numbers compared`);
}

for (const path of pages) await check(path);
await browser.close();
wrong.forEach((line) => console.error(line));
process.exit(wrong.length ? 1 : 0);
