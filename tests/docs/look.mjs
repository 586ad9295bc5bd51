// Opens pages of a server on this machine in a headless browser; prints what it sees as JSON.
//
//   node look.mjs '{"browser": ..., "modules": ..., "site": "http://127.0.0.1:8000",
//                   "views": [[page, width, "light" or "dark"], ...], "shots": folder or null,
//                   "search": words to look for in the first view, or null}'

import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { pathToFileURL } from "node:url";

const options = JSON.parse(process.argv[2]);
const require = createRequire(pathToFileURL(options.modules + "/"));
const puppeteer = await import(pathToFileURL(require.resolve("puppeteer-core")));
const axe = readFileSync(require.resolve("axe-core/axe.min.js"), "utf8");

// Types into the search box; returns the titles of what is found.
async function search(page, words) {
  await page.click('label[for="__search"]:not(.md-overlay)').catch(() => {});
  await page.focus(".md-search__input");
  await page.keyboard.type(words);
  await page.waitForSelector(".md-search-result__item h1, .md-search-result__item h2", {
    timeout: 20000,
  });
  return page.$$eval(".md-search-result__item h1, .md-search-result__item h2", (all) =>
    all.map((each) => each.textContent.trim()),
  );
}

const browser = await puppeteer.launch({
  executablePath: options.browser,
  headless: "shell",
  args: ["--no-sandbox", "--font-render-hinting=none", "--disable-gpu"],
});
try {
  const seen = [];
  for (const [name, width, scheme] of options.views) {
    // Of its own: the theme remembers the colors of the page before.
    const context = await browser.createBrowserContext();
    const page = await context.newPage();
    const requests = [];
    const errors = [];
    page.on("request", (request) => requests.push(request.url()));
    page.on("console", (message) => errors.push(message.text()));
    page.on("pageerror", (error) => errors.push(String(error)));
    await page.setViewport({ width, height: 900 });
    await page.emulateMediaFeatures([{ name: "prefers-color-scheme", value: scheme }]);
    await page.goto(`${options.site}/${name}`, { waitUntil: "networkidle0" });
    const sizes = await page.evaluate(() => ({
      scrollWidth: document.documentElement.scrollWidth,
      innerWidth: window.innerWidth,
      scheme: document.body.dataset.mdColorScheme,
    }));
    if (options.shots) {
      const file = `${options.shots}/${name.replaceAll("/", "-")}-${width}-${scheme}.png`;
      await new Promise((resolve) => setTimeout(resolve, 500)); // what fades in
      await page.screenshot({ path: file, fullPage: true });
    }
    await page.evaluate(axe);
    // The theme gives several parts of a page the same role, and names only some of them.
    const rules = { "landmark-unique": { enabled: false } };
    const { violations } = await page.evaluate((rules) => window.axe.run({ rules }), rules);
    const faults = violations.map(({ id, nodes }) => `${id}: ${nodes.map((node) => node.html)}`);
    const found = options.search && !seen.length ? await search(page, options.search) : null;
    seen.push({ name, width, ...sizes, requests, errors, faults, found });
    await context.close();
  }
  console.log(JSON.stringify(seen));
} finally {
  await browser.close();
}
