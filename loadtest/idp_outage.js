// The provider is away, longer than access tokens live. Living tokens are used to their end; then 503 and never 401, and no
// session is lost: as soon as it is back all go on, without a login.
import { check, sleep } from 'k6';

import { isMine, newUser, problem } from './lib/login.js';
import { TIMED, VUS, allOf, common, director, journeys, thresholds } from './lib/profile.js';
import { API, allLoggedIn, checkUpstream, directing, goingOn, provider, until, whole } from './lib/world.js';
import { User } from './lib/user.js';

export { handleSummary } from './lib/summary.js';

export const options = { ...common, scenarios: { users: journeys('users'), director: director('direct') }, thresholds: thresholds(allOf(1)) };

/** Seconds until the tokens of the logins end, and from then on to the return of the provider. */
const LEAD = Number(__ENV.LEAD || 16);
const LONGER = 4;

export function setup() {
  const end = Math.ceil(Date.now() / 1000) + LEAD;
  provider({ ends_at: end, lifetime: 8 });
  return { end, back: end + LONGER };
}

const unavailable = (answer) => answer.status === 503 && answer.headers['Cloakroom-Error'] === 'provider_unavailable';

export const users = whole(({ back, end }) => {
  const user = newUser(__VU);
  const goOn = goingOn(Math.max(0, back - Date.now() / 1000));
  while (goOn()) {
    const answer = user.call('GET', API, 'api');
    check(answer, { 'away: 200 or 503 provider_unavailable, nothing else': (got) => isMine(user)(got) || unavailable(got) });
    if (Date.now() / 1000 < end - 3) check(answer, { 'away: a living token is used': isMine(user) });
    sleep(0.2);
  }
  const again = until(() => isMine(user)(user.call('GET', API, 'api: again')), 30, 0.2);
  check(again, { 'back: the session goes on': Boolean });
});

export const direct = directing(({ back }) => {
  // One more, who waits for the end.
  const user = newUser(0);
  check(user.call('GET', API, 'api'), { 'before: 200': isMine(user) });
  allLoggedIn(VUS + 1);
  provider({ down: true });
  const answer = new User().open('/auth/login', 'login');
  check(answer, { 'away: a login begins or is 503': ({ status }) => status === 303 || status === 503 });
  if (TIMED) check(answer, { 'away: a login answers within a second': ({ timings }) => timings.duration < 1000 });
  const last = until(() => {
    const got = user.call('GET', API, 'api: away');
    return got.status === 200 ? null : got;
  }, LEAD + 20);
  check(last, { 'away: 503 to a script once the token is over': problem(503, 'provider_unavailable') });
  sleep(Math.max(0, back - Date.now() / 1000));
  provider({ down: false });
});

// A token is used to its end, and a request is under way for a moment.
export const teardown = () => { checkUpstream(1000); };
