/**
 * Firefox and WebKit as distributions ship them, by WebDriver: Playwright drives neither. WebKit's driver listens to
 * HTTP; Firefox itself to Marionette, which has the same commands in messages of its own.
 */

import { spawn } from "node:child_process";
import { existsSync, mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { connect, createServer } from "node:net";
import { join } from "node:path";
import { setTimeout } from "node:timers/promises";

import { BROWSERS, findPrograms } from "./browsers.js";
import { end } from "./support.js";

const PATIENCE = 60_000; // milliseconds until a browser must have started

/** What Firefox does of itself is switched off: first-run pages, updates, telemetry. */
const PREFERENCES = {
  "app.normandy.enabled": false,
  "app.update.enabled": false,
  "browser.aboutwelcome.enabled": false,
  "browser.download.folderList": 2,
  "browser.shell.checkDefaultBrowser": false,
  "browser.startup.page": 0,
  "datareporting.policy.dataSubmissionEnabled": false,
  "extensions.update.enabled": false,
  "marionette.port": 0,
  "media.navigator.permission.disabled": true, // a feigned camera, of which it does not ask
  "media.navigator.streams.fake": true,
  "services.settings.server": "",
  "toolkit.telemetry.enabled": false,
};

/** One window of a browser; its page's downloads come into `downloads`. */
class Session {
  constructor(send, stop, downloads) {
    Object.assign(this, { send, stop, downloads });
  }

  go = (url) => this.send("Navigate", { url });
  resize = (width, height) => this.send("SetWindowRect", { width, height });

  /** Runs a function in the page, with arguments that JSON can hold. */
  evaluate(code, ...args) {
    return this.send("ExecuteScript", { script: `return (${code})(...arguments)`, args });
  }

  async click(selector) {
    await this.send("ElementClick", { id: await this.find(selector) });
  }

  /** Chooses a file for an input, which may be hidden. */
  async attach(selector, path) {
    await this.send("ElementSendKeys", { id: await this.find(selector), text: path });
  }

  async find(selector) {
    return Object.values(await this.send("FindElement", { using: "css selector", value: selector }))[0];
  }

  /** Chooses an entry of a select element as a user's choice would. */
  select(selector, value) {
    return this.evaluate(
      (selector, value) => {
        const element = document.querySelector(selector);
        element.value = value;
        element.dispatchEvent(new Event("change", { bubbles: true }));
        return element.value;
      },
      selector,
      value,
    );
  }

  /** Waits until a function in the page gives something true, and returns it. */
  async until(code, milliseconds = 60_000) {
    for (const end = performance.now() + milliseconds; performance.now() < end; await setTimeout(100)) {
      const value = await this.evaluate(code);
      if (value) return value;
    }
    throw new Error(`After ${milliseconds} ms still not: ${code}. The page says: ${await this.text("#outcome")}`);
  }

  text = (selector) => this.evaluate((selector) => document.querySelector(selector).textContent, selector);

  async screenshot(path) {
    writeFileSync(path, Buffer.from(await this.send("TakeScreenshot", { full: false }), "base64"));
  }
}

// Firefox

export async function startFirefox(folder) {
  const [profile, downloads] = [join(folder, "profile"), join(folder, "downloads")];
  for (const path of [profile, downloads]) mkdirSync(path, { recursive: true });
  const preferences = Object.entries({ ...PREFERENCES, "browser.download.dir": downloads });
  const lines = preferences.map(([name, value]) => `user_pref("${name}", ${JSON.stringify(value)});\n`);
  writeFileSync(join(profile, "user.js"), lines.join(""));
  const args = ["--headless", "--marionette", "--no-remote", "--profile", profile];
  const firefox = spawnHere(findPrograms(BROWSERS.firefox)[0], args, { stdio: "ignore" });
  const port = join(profile, "MarionetteActivePort");
  await eventually(() => existsSync(port) && readFileSync(port, "utf8"));
  const send = await openMarionette(Number(readFileSync(port, "utf8")));
  await send("NewSession", {});
  return new Session(send, () => end(firefox), downloads);
}

/** The function that sends a command to Firefox and resolves to its answer: `LENGTH:[type, number, error, result]`. */
async function openMarionette(port) {
  const socket = connect(port, "127.0.0.1");
  const waiting = new Map();
  let [received, number] = [Buffer.alloc(0), 0];
  socket.on("data", (data) => {
    received = Buffer.concat([received, data]);
    for (let message; (message = take());) {
      if (!Array.isArray(message)) continue; // the greeting
      const [, number, error, result] = message;
      const [resolve, reject] = waiting.get(number);
      waiting.delete(number);
      if (error) reject(new Error(`${error.error}: ${error.message}`));
      else resolve(result && "value" in result ? result.value : result);
    }
  });
  socket.on("close", () => waiting.forEach(([, reject]) => reject(new Error("Firefox closed the connection."))));
  socket.on("error", () => {}); // it closes then
  await new Promise((resolve) => socket.once("connect", resolve));

  function take() {
    const colon = received.indexOf(":");
    const end = colon + 1 + Number(received.subarray(0, Math.max(0, colon)));
    if (colon < 0 || received.length < end) return null;
    const message = JSON.parse(received.subarray(colon + 1, end));
    received = received.subarray(end);
    return message;
  }

  return (command, params) =>
    new Promise((resolve, reject) => {
      const text = JSON.stringify([0, ++number, `WebDriver:${command}`, params]);
      waiting.set(number, [resolve, reject]);
      socket.write(`${Buffer.byteLength(text)}:${text}`);
    });
}

// WebKit

const ROUTES = {
  Navigate: ["POST", "/url"],
  SetWindowRect: ["POST", "/window/rect"],
  ExecuteScript: ["POST", "/execute/sync"],
  FindElement: ["POST", "/element"],
  ElementClick: ["POST", "/element/ID/click"],
  ElementSendKeys: ["POST", "/element/ID/value"],
  TakeScreenshot: ["GET", "/screenshot"],
};

export async function startWebKit(folder) {
  mkdirSync(folder, { recursive: true });
  const [driverPath, screenPath] = findPrograms(BROWSERS.webkit);
  const screen = spawnHere(screenPath, ["-displayfd", "3", "-nolisten", "tcp", "-screen", "0", "1600x1200x24"], {
    stdio: ["ignore", "ignore", "ignore", "pipe"],
  });
  const display = await new Promise((resolve) => screen.stdio[3].once("data", (data) => resolve(`:${data}`.trim())));
  const port = await freePort();
  // Downloads, caches and settings go to a home of its own.
  const env = { ...process.env, DISPLAY: display, GDK_BACKEND: "x11", HOME: folder };
  for (const name of Object.keys(env)) if (name.startsWith("XDG_") && name.endsWith("_HOME")) delete env[name];
  const driver = spawnHere(driverPath, [`--port=${port}`], { stdio: "ignore", env });
  const address = `http://127.0.0.1:${port}`;
  await eventually(() => fetch(`${address}/status`).catch(() => null));
  const { sessionId } = await ask("POST", `${address}/session`, { capabilities: {} });
  const send = (command, { id, ...body }) => {
    const [method, path] = ROUTES[command];
    return ask(method, `${address}/session/${sessionId}${path.replace("ID", id)}`, method === "GET" ? undefined : body);
  };
  const stop = async () => {
    await ask("DELETE", `${address}/session/${sessionId}`);
    await end(driver);
    await end(screen);
  };
  return new Session(send, stop, folder);
}

async function ask(method, url, body) {
  const response = await fetch(url, { method, body: body && JSON.stringify(body) });
  const { value } = await response.json();
  if (!response.ok) throw new Error(`${value.error}: ${value.message}`);
  return value;
}

async function freePort() {
  const server = createServer().listen(0, "127.0.0.1");
  await new Promise((resolve) => server.once("listening", resolve));
  const { port } = server.address();
  await new Promise((resolve) => server.close(resolve));
  return port;
}

// Processes

/** Starts a process that does not outlive this one, whatever fails. */
function spawnHere(...args) {
  const child = spawn(...args);
  process.on("exit", () => child.kill());
  return child;
}

async function eventually(condition) {
  for (const end = performance.now() + PATIENCE; performance.now() < end; await setTimeout(100)) {
    if (await condition()) return;
  }
  throw new Error("The browser did not start.");
}
