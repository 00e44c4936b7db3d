// The provider takes its time for each token while access tokens of all sessions run out. Requests do not wait for it while
// the old token lives, nobody is logged out, and each refresh happens once.
import { check, sleep } from 'k6';

import { isMine, newUser } from './lib/login.js';
import { TIMED, VUS, allOf, common, journeys, thresholds } from './lib/profile.js';
import { API, checkUpstream, provider, tokenEnd, whole } from './lib/world.js';

export { handleSummary } from './lib/summary.js';

export const options = { ...common, scenarios: { users: journeys('users') }, thresholds: thresholds(allOf()) };

/** Milliseconds; well below the time between the refresh ahead and the end of a token. */
const DELAY = Number(__ENV.DELAY || 1500);
const BEFORE = Number(__ENV.LEAD || 15);

export function setup() {
  const end = Math.ceil(Date.now() / 1000) + BEFORE;
  provider({ ends_at: end });
  return { end };
}

export const users = whole(({ end: first }) => {
  const user = newUser(__VU);
  const end = tokenEnd(first);
  let slow = false;
  while (Date.now() / 1000 < end + 3) {
    // All are logged in long before this, unless the machine is very slow; the refreshes begin later.
    if (!slow && Date.now() / 1000 > end - 8) {
      provider({ delay: DELAY });
      slow = true;
    }
    for (const answer of user.everywhere(API, 'api')) {
      check(answer, { 'api: 200, and for this user': isMine(user) });
      if (TIMED) check(answer, { 'api: does not wait for the provider': ({ timings }) => timings.duration < DELAY * 0.6 });
    }
    sleep(0.1);
  }
});

export function teardown() {
  const seen = checkUpstream();
  if (seen) check(seen, {
    'provider: all sessions were refreshed': ({ provider: counts }) => counts.refreshed === counts.families && counts.families === VUS,
    'provider: one token call for each session': ({ provider: counts }) => counts.most_refreshes === 1,
  });
}
