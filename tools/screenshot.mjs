// Takes a picture of the top of a page, without network.
//
//   node screenshot.mjs '{"browser": ..., "modules": ..., "page": ..., "width": 960, "height": 1192,
//                         "picture": file}'

import { pathToFileURL } from "node:url";

import { newPage, options, withBrowser } from "./browser_pages.mjs";

const { width, height } = options;
await withBrowser(async (browser) => {
  const { page } = await newPage(browser, { width, height, scheme: "light" });
  await page.setOfflineMode(true);
  await page.goto(pathToFileURL(options.page).href);
  await page.screenshot({ path: options.picture });
});
