// Chromium as a user would have it, plus a record of everything that reached it.
import { accessSync, constants, mkdirSync } from 'node:fs';
import { delimiter, join } from 'node:path';
import { chromium } from 'playwright-core';
import { until } from './net.mjs';
import { screenshots } from './paths.mjs';

function chromiumPath() {
  if (process.env.CHROMIUM) return process.env.CHROMIUM;
  const names = ['chromium', 'chromium-browser', 'google-chrome-stable', 'google-chrome'];
  for (const folder of (process.env.PATH ?? '').split(delimiter)) {
    for (const name of names) {
      const path = join(folder, name);
      try {
        accessSync(path, constants.X_OK);
        return path;
      } catch {
        // Not here.
      }
    }
  }
  throw new Error('no Chromium in PATH; install it, or name it in CHROMIUM');
}

export function launch() {
  mkdirSync(screenshots, { recursive: true });
  return chromium.launch({
    executablePath: chromiumPath(),
    args: [
      // Root, as in a container, has no sandbox.
      ...(process.getuid?.() === 0 ? ['--no-sandbox'] : []),
      '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-background-networking',
      '--disable-component-update', '--disable-sync', '--disable-dev-shm-usage',
    ],
  });
}

/** One user's browser profile: own cookies, and a record of every byte that came in from `site`. */
export async function newUser(browser, site, options = {}) {
  const context = await browser.newContext({ ignoreHTTPSErrors: true, ...options });
  context.setDefaultTimeout(30_000);
  /** What the browser saw: `{ url, text }`; `text` is headers, or a body. */
  const record = [];
  const pending = [];
  context.on('response', (response) => {
    const url = response.url();
    pending.push(
      response.allHeaders().then(
        (headers) => record.push({ url, text: JSON.stringify(headers) }),
        () => {},
      ),
    );
  });
  return {
    context,
    site,
    /** A new tab. Bodies are taken before the page gets them, so a page that is left at once is recorded too. */
    async tab() {
      const page = await context.newPage();
      const devtools = await context.newCDPSession(page);
      devtools.on('Fetch.requestPaused', async ({ requestId, request, responseStatusCode = 0, responseHeaders }) => {
        try {
          const redirect = responseStatusCode >= 300 && responseStatusCode < 400;
          // The body of an event stream has no end to wait for.
          const endless = (responseHeaders ?? []).some(({ value }) => value === 'text/event-stream');
          if (responseStatusCode && !redirect && !endless) {
            const { body, base64Encoded } = await devtools.send('Fetch.getResponseBody', { requestId });
            record.push({ url: request.url, text: base64Encoded ? Buffer.from(body, 'base64').toString('utf8') : body });
          }
          record.push({ url: request.url, text: JSON.stringify(responseHeaders ?? []) });
          await devtools.send('Fetch.continueRequest', { requestId });
        } catch {
          // The tab was closed, or the request given up, meanwhile.
        }
      });
      await devtools.send('Fetch.enable', { patterns: [{ urlPattern: `${site}/*`, requestStage: 'Response' }] });
      return page;
    },
    /** Everything recorded so far. */
    async seen() {
      await Promise.all(pending);
      return record;
    },
    /** The browser's own cookies for the site. */
    cookies: () => context.cookies(site),
    async cookie(name) {
      return (await context.cookies(site)).find((cookie) => cookie.name === name);
    },
    close: () => context.close(),
  };
}

/**
 * Stops `page` when it first asks for an address that fits `pattern`, redirects included. `caught` waits for that and returns
 * the address; from then on the page goes where it likes.
 */
export async function stopAt(page, pattern) {
  const devtools = await page.context().newCDPSession(page);
  let stopped;
  devtools.on('Fetch.requestPaused', ({ requestId, request }) => {
    stopped ??= request.url;
    devtools.send('Fetch.failRequest', { requestId, errorReason: 'Aborted' }).catch(() => {});
  });
  await devtools.send('Fetch.enable', { patterns: [{ urlPattern: pattern, requestStage: 'Request' }] });
  return {
    async caught() {
      await until(`the browser asks for ${pattern}`, () => stopped);
      await devtools.detach();
      return stopped;
    },
  };
}

/** Fills Keycloak's form and sends it. */
export async function fillForm(page, user, { password = user, timeout = 30_000 } = {}) {
  await page.locator('#username').fill(user, { timeout });
  await page.locator('#password').fill(password, { timeout });
  await page.locator('#kc-login').click({ timeout });
}

/** Logs `user` in by going to `url`, and comes back when the browser is at `url` again. */
export async function logIn(page, url, user) {
  await page.goto(url);
  await fillForm(page, user);
  await page.waitForURL(url);
}

/** `fetch` from within the page: status, headers and text. */
export function call(page, path, options = {}) {
  return page.evaluate(
    async ([path, options]) => {
      const answer = await fetch(path, { redirect: 'manual', ...options });
      return { status: answer.status, headers: Object.fromEntries(answer.headers), text: await answer.text() };
    },
    [path, options],
  );
}

export async function shoot(page, name) {
  await page.screenshot({ path: join(screenshots, `${name}.png`) });
}
