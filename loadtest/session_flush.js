// All sessions are gone at once (the store lost them). No 5xx; scripts get 401 and never a redirect; a login mends it.
import { check, sleep } from 'k6';

import { isMine, newUser } from './lib/login.js';
import { SECONDS, VUS, allOf, common, director, journeys, thresholds } from './lib/profile.js';
import { API, act, allLoggedIn, counted, whole } from './lib/world.js';

export { handleSummary } from './lib/summary.js';

export const options = { ...common, scenarios: { users: journeys('users'), director: director('direct') }, thresholds: thresholds(allOf(1)) };

/** Seconds in which it must have happened. Users do not wait for their end. */
const WITHIN = counted ? 200 : Number(__ENV.LEAD || 6) + SECONDS;

export const users = whole(() => {
  const user = newUser(__VU);
  const end = Date.now() / 1000 + WITHIN;
  let over = false;
  while (Date.now() / 1000 < end) {
    const answer = user.call('GET', API, 'api');
    const good = check(answer, {
      'api: 200 or 401, nothing else': (got) => isMine(user)(got) || (got.status === 401 && got.headers['Cloakroom-Error'] === 'session_expired'),
      'api: what is over stays over': ({ status }) => !over || status === 401,
    });
    if (!good) break;
    if (answer.status === 401) {
      // The page logs in again after a moment.
      if (over) break;
      over = true;
    }
    sleep(0.2);
  }
  check(over, { 'the sessions were lost': Boolean });
  const again = newUser(__VU);
  check(again.call('GET', API, 'api'), { 'api: 200 after a new login': isMine(again) });
});

export const direct = whole(() => {
  allLoggedIn(VUS);
  act('store/flush');
});
