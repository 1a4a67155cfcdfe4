/** Which browsers are here, and how to get one that is not: `node test/browsers.js` says it. */

import { existsSync } from "node:fs";
import { delimiter, join } from "node:path";
import { argv, env, exit } from "node:process";
import { fileURLToPath } from "node:url";

/** Each needs one program of each line; an environment variable may say where the first of them is. */
export const BROWSERS = {
  chromium: {
    name: "Chromium",
    variable: "CHROMIUM",
    programs: [["chromium", "chromium-browser", "google-chrome"]],
    packages: "chromium",
  },
  firefox: {
    name: "Firefox",
    variable: "FIREFOX",
    programs: [["firefox-esr", "firefox"]],
    packages: "firefox-esr",
  },
  webkit: {
    name: "WebKit",
    variable: "WEBKIT_DRIVER",
    programs: [["WebKitWebDriver"], ["Xvfb"]],
    packages: "webkit2gtk-driver xvfb",
  },
};

/** Where a browser's programs are; undefined for what is missing. */
export function findPrograms({ variable, programs }) {
  const folders = env.PATH.split(delimiter);
  const found = programs.map((names) =>
    names.flatMap((name) => folders.map((folder) => join(folder, name))).find((path) => existsSync(path)),
  );
  if (env[variable]) found[0] = env[variable];
  return found;
}

/** Why a browser's tests cannot run here, in a line that says how they could; false if they can. */
export function whyNot(id) {
  const { name, variable, programs, packages } = BROWSERS[id];
  const found = findPrograms(BROWSERS[id]);
  if (found.every((path) => path && existsSync(path))) return false;
  const missing = programs.map(([first], index) => (found[index] && existsSync(found[index]) ? null : first));
  return (
    `no ${missing.filter(Boolean).join(" and ")} here: on Debian \`apt-get install ${packages}\`; ` +
    `elsewhere set ${variable} to the program`
  );
}

if (argv[1] === fileURLToPath(import.meta.url)) {
  const missing = Object.keys(BROWSERS).filter(whyNot);
  for (const id of missing) console.log(`== SKIPPED the page's tests in ${BROWSERS[id].name}: ${whyNot(id)}`);
  if (missing.length === Object.keys(BROWSERS).length) exit(1);
}
