// The session store is away for some seconds. That is not "no session": whoever is logged in gets what the cache knows or
// 503, never 401, never a login, and keeps the cookie; pages without a session notice nothing; when it is back all go on.
import { check, sleep } from 'k6';

import { isMine, newUser, problem } from './lib/login.js';
import { SECONDS, VUS, allOf, common, director, journeys, thresholds } from './lib/profile.js';
import { API, PUBLIC, act, allLoggedIn, checkUpstream, controlled, counted, directing, goingOn, until, whole } from './lib/world.js';
import { User } from './lib/user.js';

export { handleSummary } from './lib/summary.js';

export const options = { ...common, scenarios: { users: journeys('users'), director: director('direct') }, thresholds: thresholds(allOf(1)) };

const LEAD = Number(__ENV.LEAD || 10);
const AWAY = Number(__ENV.AWAY || 4);
const unavailable = ({ status, headers }) =>
  status === 503 && headers['Cloakroom-Error'] === 'store_unavailable' && Number(headers['Retry-After']) >= 1;

export const users = whole(() => {
  const user = newUser(__VU);
  const before = user.line();
  const goOn = goingOn(counted ? SECONDS : LEAD + AWAY + SECONDS);
  while (goOn()) {
    check(user.call('GET', API, 'api'), {
      'always: 200 or 503 store_unavailable, nothing else': (answer) => isMine(user)(answer) || unavailable(answer),
    });
    check(new User().open(PUBLIC, 'page'), { 'always: a page without a session is 200': ({ status }) => status === 200 });
    sleep(0.1);
  }
  check(user.line(), { 'always: no cookie is cleared': (line) => line === before });
  check(until(() => isMine(user)(user.call('GET', API, 'api: again')), 30), { 'back: the session goes on, without a login': Boolean });
});

export const direct = directing(() => {
  // One more, who sees the outage from within.
  const user = newUser(0);
  check(user.call('GET', API, 'api'), { 'before: 200': isMine(user) });
  allLoggedIn(VUS + 1);
  act('store/stop');
  if (controlled) {
    // The cache may know the session for a while.
    const answer = until(() => {
      const got = user.call('GET', API, 'api: away');
      return got.status === 200 ? null : got;
    }, 30);
    check(answer, { 'away: 503 to a script, and when to come back': problem(503, 'store_unavailable') });
    check(user.open('/api/whoami', 'navigation: away'), { 'away: no login starts': ({ status }) => status === 503 });
  }
  sleep(AWAY);
  act('store/start');
  sleep(3);
});

export const teardown = () => { checkUpstream(); };
