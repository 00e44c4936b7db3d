// PostgreSQL on a free port with a cluster of its own, which is gone with the test.
import { spawnSync } from 'node:child_process';
import { appendFileSync, chownSync, existsSync, mkdtempSync, readFileSync, readdirSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { delimiter, join } from 'node:path';
import { freePort } from './net.mjs';
import { logs } from './paths.mjs';
import { start } from './process.mjs';
import { quote } from './servers.mjs';

/** Where its programs are: Debian keeps them out of the path, one folder a version. */
function folder() {
  const debian = '/usr/lib/postgresql';
  const versions = existsSync(debian) ? readdirSync(debian).sort((one, other) => Number(other) - Number(one)) : [];
  const places = [...versions.map((version) => join(debian, version, 'bin')), ...(process.env.PATH ?? '').split(delimiter)];
  const found = places.find((place) => existsSync(join(place, 'initdb')));
  if (!found) throw new Error('PostgreSQL is needed (Debian: apt install postgresql)');
  return found;
}

/** Who is to run it, which root may not: the user that the package has made, or nobody. */
function owner() {
  if (process.getuid?.() !== 0) return {};
  const users = readFileSync('/etc/passwd', 'utf8').split('\n').map((line) => line.split(':'));
  const of = (name) => users.find(([user]) => user === name);
  const [, , uid, gid] = of('postgres') ?? of('nobody');
  return { uid: Number(uid), gid: Number(gid) };
}

export async function startPostgres(name) {
  const programs = folder();
  const as = owner();
  // Not below the project: its owner may not get there.
  const data = mkdtempSync(join(tmpdir(), 'cloakroom-e2e-postgres-'));
  const remove = () => rmSync(data, { recursive: true, force: true });
  process.on('exit', remove);
  if (as.uid !== undefined) chownSync(data, as.uid, as.gid);
  const run = (program, args) => {
    const done = spawnSync(join(programs, program), args, { cwd: '/', encoding: 'utf8', ...as });
    if (done.status !== 0) throw new Error(`${program}: ${done.error?.message ?? done.stderr}`);
    return done.stdout;
  };
  run('initdb', ['--auth=trust', '--username=postgres', '--encoding=UTF8', '--locale=C', '--no-sync', '-D', data]);
  appendFileSync(join(data, 'postgresql.conf'), "\nlisten_addresses = '127.0.0.1'\nunix_socket_directories = ''\nfsync = off\n");
  const port = await freePort();
  const server = start('PostgreSQL', join(programs, 'postgres'), ['-D', data, '-p', String(port)], {
    cwd: '/', log: join(logs, `${name}-postgres.log`), ...as,
  });
  const at = ['-h', '127.0.0.1', '-p', String(port)];
  await server.ready(() => spawnSync(join(programs, 'pg_isready'), ['-q', ...at]).status === 0, 30);
  const url = `postgres://postgres@127.0.0.1:${port}/postgres`;
  return {
    url,
    settings: `{ kind: postgres, url: ${quote(url)}, command_timeout: 2s }`,
    /** All that lies in it, as SQL. */
    dump: () => run('pg_dump', ['-U', 'postgres', ...at, 'postgres']),
    async stop() {
      await server.stop();
      process.off('exit', remove);
      remove();
    },
  };
}
