// Opens pages of a server on this machine in a headless browser; prints what it sees as JSON.
//
//   node look.mjs '{"browser": ..., "modules": ..., "site": "http://127.0.0.1:8000",
//                   "views": [[page, width, "light" or "dark"], ...], "shots": folder or null,
//                   "search": words to look for in the first view, or null}'

import { auditPage, newPage, options, withBrowser } from "../../tools/browser_pages.mjs";

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

await withBrowser(async (browser) => {
  const seen = [];
  for (const [name, width, scheme] of options.views) {
    // Of its own: the theme remembers the colors of the page before.
    const context = await browser.createBrowserContext();
    const { page, requests, errors } = await newPage(context, { width, scheme });
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
    // The theme gives several parts of a page the same role, and names only some of them.
    const faults = await auditPage(page, { "landmark-unique": { enabled: false } });
    const found = options.search && !seen.length ? await search(page, options.search) : null;
    seen.push({ name, width, ...sizes, requests, errors, faults, found });
    await context.close();
  }
  console.log(JSON.stringify(seen));
});
