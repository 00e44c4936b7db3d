// Waiting and ports: everything here polls with a deadline, nothing sleeps for luck.
import http from 'node:http';
import https from 'node:https';
import net from 'node:net';
import { setTimeout as pause } from 'node:timers/promises';

/** A loopback port that was free a moment ago. */
export function freePort() {
  return new Promise((resolve, reject) => {
    const server = net.createServer();
    server.once('error', reject);
    server.listen(0, '127.0.0.1', () => {
      const { port } = server.address();
      server.close(() => resolve(port));
    });
  });
}

/** Calls `probe` until it gives something true, and returns that; fails with `what` when `seconds` are over. */
export async function until(what, probe, { seconds = 30, every = 100 } = {}) {
  const deadline = Date.now() + seconds * 1000;
  let last;
  for (;;) {
    try {
      const value = await probe();
      if (value) return value;
      last = undefined;
    } catch (error) {
      if (error?.fatal) throw error;
      last = error;
    }
    if (Date.now() >= deadline) {
      throw new Error(`waited ${seconds} s in vain for: ${what}`, { cause: last });
    }
    await pause(every);
  }
}

/** An error that ends `until` at once: what was waited for can no longer come. */
export function fatal(message) {
  return Object.assign(new Error(message), { fatal: true });
}

/** Starts an HTTP server on a free loopback port. */
export function listen(server) {
  return new Promise((resolve, reject) => {
    server.once('error', reject);
    server.listen(0, '127.0.0.1', () => resolve(server.address().port));
  });
}

/**
 * A `fetch` that trusts `ca` alone. Node's own takes certificates only from a variable that is set before it starts.
 * It follows no redirect.
 */
export function fetchTrusting(ca) {
  return async (url, options = {}) => {
    const asked = new Request(url, options);
    const body = Buffer.from(await asked.arrayBuffer());
    const { method, signal, headers } = asked;
    return new Promise((resolve, reject) => {
      const { request } = new URL(url).protocol === 'https:' ? https : http;
      const sent = request(url, { method, ca, signal, headers: Object.fromEntries(headers) }, async (answer) => {
        try {
          const chunks = await answer.toArray();
          const head = Object.entries(answer.headersDistinct).flatMap(([name, values]) => values.map((value) => [name, value]));
          const empty = [204, 205, 304].includes(answer.statusCode);
          resolve(new Response(empty ? null : Buffer.concat(chunks), { status: answer.statusCode, headers: head }));
        } catch (error) {
          reject(error);
        }
      });
      sent.once('error', reject);
      sent.end(body);
    });
  };
}

/** A request to `origin` with its path as it is written; `fetch` would tidy it up. */
export function ask(origin, path, { ca, method = 'GET', headers = {} } = {}) {
  return new Promise((resolve, reject) => {
    const { hostname, port, host } = new URL(origin);
    const options = { hostname, port, path, method, ca, headers: { host, ...headers }, timeout: 10_000 };
    const sent = https.request(options, async (answer) => {
      try {
        resolve({ status: answer.statusCode, headers: answer.headers, text: Buffer.concat(await answer.toArray()).toString() });
      } catch (error) {
        reject(error);
      }
    });
    // The answer to CONNECT, which has no body to read here.
    sent.once('connect', (answer, socket) => {
      socket.destroy();
      resolve({ status: answer.statusCode, headers: answer.headers, text: '' });
    });
    sent.once('timeout', () => sent.destroy(new Error(`${path} is not answered`)));
    sent.once('error', reject);
    sent.end();
  });
}
