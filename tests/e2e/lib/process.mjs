// Child processes that never outlive the test: each is the head of its own process group and is ended by its id.
import { spawn } from 'node:child_process';
import { mkdirSync, openSync, closeSync, readFileSync } from 'node:fs';
import { dirname } from 'node:path';
import { fatal, until } from './net.mjs';

const running = new Set();

process.on('exit', () => {
  for (const child of running) signal(child, 'SIGKILL');
});
for (const name of ['SIGINT', 'SIGTERM', 'SIGHUP']) {
  process.once(name, () => process.exit(1));
}

function signal(child, name) {
  try {
    process.kill(-child.pid, name);
  } catch {
    // It has ended already.
  }
}

/** Starts a program whose output goes to the file `log`; as the user `uid` of the group `gid`, if they are given. */
export function start(name, command, args, { env = {}, cwd, log, uid, gid }) {
  mkdirSync(dirname(log), { recursive: true });
  const out = openSync(log, 'w');
  const child = spawn(command, args, {
    cwd,
    uid,
    gid,
    env: { ...process.env, ...env },
    detached: true,
    stdio: ['ignore', out, out],
  });
  closeSync(out);
  running.add(child);
  let ended;
  const exit = new Promise((resolve) => {
    child.once('error', (error) => finish(`could not be started: ${error.message}`));
    child.once('exit', (code, sig) => finish(`ended with ${sig ?? `code ${code}`}`));
    function finish(how) {
      ended ??= how;
      running.delete(child);
      resolve();
    }
  });
  return {
    name,
    log,
    pid: child.pid,
    signal: (sig) => signal(child, sig),
    /** Waits until `probe` holds; fails at once, with the end of the log, if the program ends before. */
    async ready(probe, seconds) {
      const check = () => {
        if (ended) throw fatal(`${name} ${ended}`);
        return probe();
      };
      try {
        await until(`${name} is ready`, check, { seconds, every: 200 });
      } catch (error) {
        const tail = readFileSync(log, 'utf8').split('\n').slice(-40).join('\n');
        throw new Error(`${error.message}\n--- ${log}\n${tail}`, { cause: error.cause });
      }
    },
    async stop(seconds = 10) {
      if (ended) return;
      signal(child, 'SIGTERM');
      const kill = setTimeout(() => signal(child, 'SIGKILL'), seconds * 1000);
      await exit;
      clearTimeout(kill);
    },
  };
}
