// Starts the headless browser of `make extras`, and opens pages in it. Every script gets one argument,
// JSON with `browser`, the program, and `modules`, the folder of the Node.js packages.

import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { pathToFileURL } from "node:url";

export const options = JSON.parse(process.argv[2]);
const require = createRequire(pathToFileURL(options.modules + "/"));

// The source of axe-core, which runs in a page.
export const axe = () => readFileSync(require.resolve("axe-core/axe.min.js"), "utf8");

// Calls a function with the browser, and closes it whatever happens.
export async function withBrowser(use) {
  const puppeteer = await import(pathToFileURL(require.resolve("puppeteer-core")));
  const browser = await puppeteer.launch({
    executablePath: options.browser,
    headless: "shell",
    args: ["--no-sandbox", "--font-render-hinting=none", "--disable-gpu"],
  });
  try {
    return await use(browser);
  } finally {
    await browser.close();
  }
}

// A page of a browser, or of a context of it, and what it will fetch and complain of.
export async function newPage(parent, { width, height = 900, scheme }) {
  const page = await parent.newPage();
  const requests = [];
  const errors = [];
  page.on("request", (request) => requests.push(request.url()));
  page.on("console", (message) => errors.push(message.text()));
  page.on("pageerror", (error) => errors.push(String(error)));
  await page.setViewport({ width, height });
  await page.emulateMediaFeatures([{ name: "prefers-color-scheme", value: scheme }]);
  return { page, requests, errors };
}

// What axe-core finds wrong with a page, as texts.
export async function auditPage(page, rules = {}) {
  await page.evaluate(axe());
  const { violations } = await page.evaluate((rules) => window.axe.run({ rules }), rules);
  return violations.map(({ id, nodes }) => `${id}: ${nodes.map((node) => node.html)}`);
}
