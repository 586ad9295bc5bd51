// Opens pages from disk, without network, in a headless browser; prints what it sees as JSON.
//
//   node look.mjs '{"browser": ..., "modules": ..., "page": ..., "shots": folder or null,
//                   "views": [[width, "light" or "dark", whether axe-core looks too], ...]}'

import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { pathToFileURL } from "node:url";

const options = JSON.parse(process.argv[2]);
const require = createRequire(pathToFileURL(options.modules + "/"));
const puppeteer = await import(pathToFileURL(require.resolve("puppeteer-core")));
const axe = readFileSync(require.resolve("axe-core/axe.min.js"), "utf8");

// Runs in the page: sizes, as a reader's eye meets them.
function measure() {
  const texts = [];
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  const range = document.createRange();
  while (walker.nextNode()) {
    const node = walker.currentNode;
    const parent = node.parentElement;
    if (!node.textContent.trim() || parent.closest(".hidden, title, thead")) continue;
    range.selectNodeContents(node);
    const box = range.getBoundingClientRect();
    if (!box.width) continue; // nothing to be seen
    const svg = parent.closest("svg");
    const scale = svg ? svg.getScreenCTM().a : 1;
    texts.push({
      words: node.textContent.trim(),
      size: parseFloat(getComputedStyle(parent).fontSize) * scale,
      box: [box.left, box.top, box.right, box.bottom],
      picture: svg ? [...document.querySelectorAll("svg")].indexOf(svg) : null,
    });
  }
  const pictures = [...document.querySelectorAll("svg")].map((svg) => {
    const box = svg.getBoundingClientRect();
    const name = svg.getAttribute("aria-label");
    return { name, box: [box.left, box.top, box.right, box.bottom] };
  });
  return {
    scrollWidth: document.documentElement.scrollWidth,
    innerWidth: window.innerWidth,
    height: document.documentElement.scrollHeight,
    title: document.title,
    text: document.body.innerText,
    texts,
    pictures,
  };
}

const browser = await puppeteer.launch({
  executablePath: options.browser,
  headless: "shell",
  args: ["--no-sandbox", "--font-render-hinting=none", "--disable-gpu"],
});
try {
  const seen = [];
  for (const [width, scheme, audit] of options.views) {
    const page = await browser.newPage();
    const requests = [];
    const errors = [];
    page.on("request", (request) => requests.push(request.url()));
    page.on("console", (message) => errors.push(message.text()));
    page.on("pageerror", (error) => errors.push(String(error)));
    await page.setOfflineMode(true);
    await page.setViewport({ width, height: 900 });
    await page.emulateMediaFeatures([{ name: "prefers-color-scheme", value: scheme }]);
    await page.goto(pathToFileURL(options.page).href);
    // What is folded away must be legible too.
    await page.$$eval("details", (all) => all.forEach((each) => (each.open = true)));
    const found = await page.evaluate(measure);
    if (options.shots) {
      await page.screenshot({ path: `${options.shots}/${width}-${scheme}.png`, fullPage: true });
    }
    let faults = null;
    if (audit) {
      await page.evaluate(axe);
      const { violations } = await page.evaluate(() => window.axe.run());
      faults = violations.map(({ id, nodes }) => `${id}: ${nodes.map((node) => node.html)}`);
    }
    seen.push({ width, scheme, requests, errors, faults, ...found });
    await page.close();
  }
  console.log(JSON.stringify(seen));
} finally {
  await browser.close();
}
