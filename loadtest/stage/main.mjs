// Provider, upstream and load balancer in one process, and a port that shows their counters and changes their manners:
//   GET  /counters            { provider, upstream }
//   POST /provider {…}        settings of the provider (SETTINGS in provider.mjs)
//   POST /reset               counts from now on, everybody behaves
//   POST /done, GET /done     a script's director says that all has happened, and its users ask
//   POST /logout/NAME         the provider ends the sessions of this user (back-channel logout)
// Standard library alone. Ports come from the environment; it listens on the loopback only.
import { createServer } from 'node:http';
import { balance } from './balancer.mjs';
import { send, text } from './http.mjs';
import { Provider, SETTINGS } from './provider.mjs';
import { Upstream } from './upstream.mjs';

const env = (name) => process.env[name] ?? (() => { throw new Error(`${name} is not set`); })();
const SABOTAGE = process.env.SABOTAGE ?? '';

const provider = new Provider(Number(env('PROVIDER_PORT')));
const upstream = new Upstream(Number(env('UPSTREAM_PORT')));
balance(Number(env('FRONT_PORT')), JSON.parse(env('REPLICAS')));

let done = false;

function reset() {
  done = false;
  provider.settings = { ...SETTINGS, sabotage: SABOTAGE };
  upstream.sabotage = SABOTAGE;
  provider.reset();
  upstream.reset();
}
reset();

createServer(async (asked, answer) => {
  const body = await text(asked);
  const [, what, name] = asked.url.split('/');
  if (what === 'counters') return send(answer, 200, { provider: provider.counters(), upstream: upstream.counters() });
  if (what === 'done' && asked.method === 'GET') return send(answer, 200, { done });
  if (asked.method !== 'POST') return send(answer, 405, {});
  if (what === 'provider') Object.assign(provider.settings, JSON.parse(body));
  else if (what === 'reset') reset();
  else if (what === 'done') done = true;
  else if (what === 'logout') await provider.endUser(decodeURIComponent(name), `http://localhost:${env('FRONT_PORT')}/auth/backchannel-logout`);
  else return send(answer, 404, {});
  send(answer, 200, {});
}).listen(Number(env('STAGE_PORT')), '127.0.0.1');
