// Whole lives of sessions, again and again: login, calls, a refresh, logout. Memory does not grow, and the store keeps no key
// that nobody will ever delete. PROFILE=soak takes four hours; shorter ones look at the keys and at coarse growth only.
import { check, sleep } from 'k6';

import { isMine, newUser } from './lib/login.js';
import { SECONDS, VUS, common, director, some, thresholds } from './lib/profile.js';
import { API, API_POST, act, checkUpstream, controlled, counted, counters, provider, until, whole } from './lib/world.js';

export { handleSummary } from './lib/summary.js';

export const options = {
  ...common,
  scenarios: {
    lives: { exec: 'life', executor: 'constant-vus', vus: VUS, duration: `${SECONDS}s`, gracefulStop: '90s' },
    ...(controlled ? { director: director('watch') } : {}),
  },
  thresholds: thresholds({ ...some('lives'), ...(controlled ? some('director', 'count==1') : {}) }),
};

/** MiB an hour, and MiB in all for runs that are too short to tell a slope. */
const SLOPE = Number(__ENV.SLOPE || 4);
const COARSE = 64;

export const setup = () => provider({ lifetime: 10 });

export const life = whole(() => {
  const user = newUser(__VU * 1000 + (__ITER % 1000));
  const end = Date.now() + (__ITER % 4 === 0 ? 12_000 : 1_000);
  while (Date.now() < end) {
    check(user.call('GET', API, 'api'), { 'api: 200, and for this user': isMine(user) });
    sleep(0.2);
  }
  check(user.post(API_POST, 'api: post', 'x=1'), { 'api: POST is 2xx': ({ status }) => status >= 200 && status < 300 });
  // Some just go away, as people do.
  if ((__ITER + __VU) % 3) check(user.post('/auth/logout', 'logout'), { 'logout: is done': ({ status }) => status === 200 });
});

export const watch = whole(() => {
  const begun = Date.now();
  const points = [];
  while (Date.now() - begun < SECONDS * 1000) {
    const kib = act('memory', 'GET').kib;
    points.push({ hours: (Date.now() - begun) / 3_600_000, mib: kib.map((value) => value / 1024) });
    sleep(Math.min(60, SECONDS / 6));
  }
  // The first third fills caches and pools.
  const late = points.slice(Math.floor(points.length / 3));
  late[0].mib.forEach((_, replica) => {
    const growth = late[late.length - 1].mib[replica] - late[0].mib[replica];
    console.log(`replica ${replica}: ${late[0].mib[replica].toFixed(1)} MiB and ${growth.toFixed(1)} MiB more`);
    if (SECONDS >= 3600) check(slope(late, replica), { [`memory: grows by less than ${SLOPE} MiB an hour`]: (value) => value < SLOPE });
    else check(growth, { [`memory: grows by less than ${COARSE} MiB`]: (value) => value < COARSE });
  });
});

/** By least squares, MiB an hour. */
function slope(points, replica) {
  const mean = (list) => list.reduce((a, b) => a + b, 0) / list.length;
  const hours = mean(points.map((point) => point.hours));
  const mib = mean(points.map((point) => point.mib[replica]));
  const above = points.reduce((sum, point) => sum + (point.hours - hours) * (point.mib[replica] - mib), 0);
  return above / points.reduce((sum, point) => sum + (point.hours - hours) ** 2, 0);
}

export function teardown() {
  checkUpstream();
  if (counted) {
    const lived = until(() => {
      const { refreshes, revoked } = counters().provider;
      return refreshes > 0 && revoked > 0;
    }, 10);
    check(lived, { 'provider: there were refreshes and logouts': Boolean });
  }
  if (!controlled) return;
  const good = until(() => act('store/keys', 'GET').endless === 0, 5, 1);
  if (!good) console.error(act('store/keys', 'GET').example);
  check(good, { 'store: every key has an end': Boolean });
}
