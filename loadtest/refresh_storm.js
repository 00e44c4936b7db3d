// Many sessions whose access tokens all end in the same second, each called at all replicas at once, before, at and after
// it. Nobody notices: one call of the provider for each session, no 401, no expired token at the upstream.
import { check, sleep } from 'k6';

import { isMine, newUser } from './lib/login.js';
import { SESSIONS, VUS, allOf, common, journeys, thresholds } from './lib/profile.js';
import { API, checkUpstream, provider, tokenEnd, whole } from './lib/world.js';

export { handleSummary } from './lib/summary.js';

export const options = { ...common, scenarios: { storm: journeys('storm') }, thresholds: thresholds(allOf()) };

/** Sessions of each browser. */
const EACH = Math.ceil(SESSIONS / VUS);
const COUNT = EACH * VUS;
/** Seconds for the logins, and after the end of the tokens. */
const BEFORE = Number(__ENV.LEAD || 14 + Math.ceil(COUNT / 25));
const AFTER = 4;

export function setup() {
  const end = Math.ceil(Date.now() / 1000) + BEFORE;
  provider({ ends_at: end });
  return { end };
}

export const storm = whole(({ end: first }) => {
  const users = [];
  for (let place = 0; place < EACH; place += 1) users.push(newUser(__VU * 10_000 + place));
  const end = tokenEnd(first);
  // Used now and then until shortly before, as sessions are: the refresh in the background is for those.
  while (Date.now() / 1000 < end - 4) {
    round(users);
    sleep(1);
  }
  // Then without a pause.
  do round(users); while (Date.now() / 1000 < end + AFTER);
});

function round(users) {
  for (const user of users) {
    for (const answer of user.everywhere(API, 'api')) {
      const good = check(answer, { 'api: 200, and for this user': isMine(user) });
      if (!good) console.error(`${answer.status} ${answer.headers['Cloakroom-Error'] ?? answer.error}`);
    }
  }
}

export function teardown() {
  const seen = checkUpstream();
  if (seen) check(seen, {
    'provider: all sessions were refreshed': (all) => all.provider.families === COUNT && all.provider.refreshed === COUNT,
    'provider: one token call for each session': (all) => all.provider.most_refreshes === 1 && all.provider.refreshes === COUNT,
  });
}
