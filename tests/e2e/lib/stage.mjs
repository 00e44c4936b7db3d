// Everything that a file of tests plays on: a site behind Cloakroom with a Redis and an application of its own, a browser,
// and what most tests ask of them. Providers are started by who needs them.
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { call, launch, newUser } from './browser.mjs';
import { freePort, until } from './net.mjs';
import { cloakroomBinary, prepareProxy, settings, siteCertificate, startRedis } from './servers.mjs';
import { startUpstream, tokenOf } from './upstream.mjs';

export const SESSION = '__Host-session';
export const XSRF = 'XSRF-TOKEN';

/**
 * Opens the stage; `name` tells its files from those of other tests. The proxy runs once `raise` is called. `startStore` starts
 * another store than Redis, `pages` are more of the application's.
 */
export async function openStage(name, { startStore = startRedis, pages = {} } = {}) {
  const binary = cloakroomBinary();
  const port = await freePort();
  const site = `https://localhost:${port}`;
  const tls = siteCertificate();
  const started = [];
  const users = [];
  let proxy;

  /** Keeps a server, or a promise of one, to be stopped in the end. */
  async function keep(server) {
    const it = await server;
    started.push(it);
    return it;
  }

  const [store, upstream, browser] = await Promise.all([keep(startStore(name)), keep(startUpstream(pages)), launch()]);

  /** The last request the application got whose path begins with `path`. */
  const last = (path) => upstream.at(path).at(-1);

  /** `at` is where the user sees the site, if another proxy stands in front. */
  async function user(options, at = site) {
    const it = await newUser(browser, at, options);
    users.push(it);
    return it;
  }

  /** Calls the API until the application sees a token other than `old`; every answer on the way must be 200. */
  function tokenChanges(page, path, old) {
    return until('the application sees a refreshed token', async () => {
      const answer = await call(page, path);
      assert.equal(answer.status, 200, answer.text);
      const token = tokenOf(last(path).headers);
      return token !== old && token;
    }, { seconds: 40, every: 500 });
  }

  /** Starts the proxy with `text` for settings, and `secrets` that they name as environment variables. */
  async function raiseWith(text, secrets = {}) {
    proxy = await prepareProxy({ name, binary, settings: text, secrets });
    started.push(proxy);
    await proxy.start();
  }

  return {
    site,
    port,
    tls,
    store,
    upstream,
    raiseWith,
    users,
    keep,
    last,
    user,
    tokenChanges,
    get proxy() {
      return proxy;
    },

    /** The same with the usual listener, store and upstream, and with the providers and sites of `rest`. */
    raise: (rest, secrets) =>
      raiseWith(settings({ port, tls, store: store.settings, upstreamPort: upstream.port, rest }), secrets),

    async close() {
      await browser.close();
      for (const server of started.reverse()) await server.stop();
    },

    /** The token that is sent upstream just now, fresh from a refresh: it lives for some seconds more. */
    async freshToken(page) {
      const answer = await call(page, '/api/me');
      assert.equal(answer.status, 200, answer.text);
      return tokenChanges(page, '/api/me', tokenOf(last('/api/me').headers));
    },

    /** The API refuses `page` although its access token is good until `end`, in milliseconds. */
    async endsAtOnce(page, end) {
      const answer = await until('the API refuses', async () => {
        const answer = await call(page, '/api/me');
        return answer.status !== 200 && answer;
      }, { seconds: 5, every: 50 });
      assert.equal(answer.status, 401, answer.text);
      assert.equal(JSON.parse(answer.text).code, 'session_expired', 'ended, not refused at a refresh');
      assert.ok(Date.now() < end, 'before the end of the access token');
    },

    /** Logs out as a script does; returns where the browser has to go next. */
    async logOut(page) {
      const xsrf = decodeURIComponent((await page.context().cookies(site)).find(({ name }) => name === XSRF).value);
      const answer = await call(page, '/auth/logout', {
        method: 'POST', headers: { 'X-XSRF-TOKEN': xsrf, Accept: 'application/json' },
      });
      assert.equal(answer.status, 200, answer.text);
      return JSON.parse(answer.text).redirect;
    },

    /** No browser was shown one of `tokens`; at least `records` pieces of what browsers saw are looked through. */
    async noTokenShown(tokens, records) {
      assert.ok(tokens.length >= 3, `only ${tokens.length} tokens came to the application`);
      let seen = 0;
      for (const it of users) {
        const cookies = JSON.stringify(await it.context.cookies());
        for (const { url, text } of [...(await it.seen()), { url: 'the cookie jar', text: cookies }]) {
          seen += 1;
          for (const token of tokens) {
            // The signature of a JWT alone is enough to know it by.
            for (const part of [token, token.split('.')[2] ?? token]) {
              assert.ok(!text.includes(part) && !url.includes(part), `an access token was shown at ${url}`);
            }
          }
          if (url.startsWith(site) && new URL(url).pathname !== '/auth/logout') {
            assert.doesNotMatch(text, /eyJ[\w-]{10,}\.eyJ[\w-]{10,}\./, `a JWT was shown at ${url}`);
          }
        }
      }
      assert.ok(seen > records, `only ${seen} records were looked through`);
    },

    /** Neither `secrets` nor a session's ticket nor a code got into the proxy's log or metrics. */
    async noneWritten(secrets) {
      const texts = [await proxy.metrics(), ...proxy.logs.map((log) => readFileSync(log, 'utf8'))];
      const tickets = [];
      for (const it of users) tickets.push((await it.cookie(SESSION))?.value);
      for (const text of texts) {
        for (const secret of [...secrets, ...proxy.secrets, ...tickets.filter(Boolean)]) {
          assert.ok(!text.includes(secret), 'a secret is in the log or in the metrics');
        }
        assert.doesNotMatch(text, /[?&]code=/);
      }
    },
  };
}

/** When a JWT ends, in milliseconds. */
export const expiryOf = (token) => JSON.parse(Buffer.from(token.split('.')[1], 'base64url')).exp * 1000;
