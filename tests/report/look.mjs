// Opens pages from disk, without network, in a headless browser; prints what it sees as JSON.
//
//   node look.mjs '{"browser": ..., "modules": ..., "page": ..., "shots": folder or null,
//                   "views": [[width, "light" or "dark", whether axe-core looks too], ...]}'

import { pathToFileURL } from "node:url";

import { auditPage, newPage, options, withBrowser } from "../../tools/browser_pages.mjs";

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

await withBrowser(async (browser) => {
  const seen = [];
  for (const [width, scheme, audit] of options.views) {
    const { page, requests, errors } = await newPage(browser, { width, scheme });
    await page.setOfflineMode(true);
    await page.goto(pathToFileURL(options.page).href);
    // What is folded away must be legible too.
    await page.$$eval("details", (all) => all.forEach((each) => (each.open = true)));
    const found = await page.evaluate(measure);
    if (options.shots) {
      await page.screenshot({ path: `${options.shots}/${width}-${scheme}.png`, fullPage: true });
    }
    const faults = audit ? await auditPage(page) : null;
    seen.push({ width, scheme, requests, errors, faults, ...found });
    await page.close();
  }
  console.log(JSON.stringify(seen));
});
