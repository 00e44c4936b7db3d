// A rolling restart under load: each replica in turn is told to end (SIGTERM) and started again, behind a load balancer that
// follows /readyz. No request fails and no session is lost.
import { check, sleep } from 'k6';

import { isMine, newUser } from './lib/login.js';
import { SECONDS, VUS, allOf, common, director, journeys, thresholds } from './lib/profile.js';
import { API, SLOW, act, allLoggedIn, checkUpstream, controlled, counted, directing, goingOn, whole } from './lib/world.js';

export { handleSummary } from './lib/summary.js';

export const options = { ...common, scenarios: { users: journeys('users'), director: director('direct') }, thresholds: thresholds(allOf(1)) };

/** Seconds of calls at least; where nobody says when all have been restarted, that is all there are. */
const LAST = Math.max(SECONDS, Number(__ENV.LAST || (counted ? 0 : 14)));

export const users = whole(() => {
  const user = newUser(__VU);
  const goOn = goingOn(LAST);
  while (goOn()) {
    const answer = user.call('GET', API, 'api');
    if (answer.status !== 200) console.error(`${answer.status} ${answer.error_code} ${answer.error}`);
    check(answer, { 'api: 200, and for this user': isMine(user) });
    // What lasts, and is never sent again by itself: some of these are under way when the replica is told to end.
    const lasting = user.post(SLOW, 'api: slow post', 'x=1');
    if (lasting.status !== 200) console.error(`POST ${lasting.status} ${lasting.error_code} ${lasting.error}`);
    check(lasting, { 'api: POST is 2xx': ({ status }) => status >= 200 && status < 300 });
  }
});

export const direct = directing(() => {
  allLoggedIn(VUS);
  for (const place of controlled ? [0, 1] : ['all']) {
    act(`drain/${place}`);
    sleep(1);
  }
});

export const teardown = () => { checkUpstream(); };
