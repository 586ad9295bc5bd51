// Unpacks the browser, its libraries and its fonts to TMPDIR.
import chromium from "@sparticuz/chromium";

await chromium.executablePath();
