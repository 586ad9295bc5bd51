// Takes a picture of the top of a page, without network.
//
//   node screenshot.mjs '{"browser": ..., "modules": ..., "page": ..., "width": 960, "height": 1192,
//                         "picture": file}'

import { createRequire } from "node:module";
import { pathToFileURL } from "node:url";

const options = JSON.parse(process.argv[2]);
const require = createRequire(pathToFileURL(options.modules + "/"));
const puppeteer = await import(pathToFileURL(require.resolve("puppeteer-core")));
const browser = await puppeteer.launch({
  executablePath: options.browser,
  headless: "shell",
  args: ["--no-sandbox", "--font-render-hinting=none", "--disable-gpu"],
});
try {
  const page = await browser.newPage();
  await page.setOfflineMode(true);
  await page.setViewport({ width: options.width, height: options.height });
  await page.emulateMediaFeatures([{ name: "prefers-color-scheme", value: "light" }]);
  await page.goto(pathToFileURL(options.page).href);
  await page.screenshot({ path: options.picture });
} finally {
  await browser.close();
}
