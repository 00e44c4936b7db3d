// Waiting and ports: everything here polls with a deadline, nothing sleeps for luck.
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
