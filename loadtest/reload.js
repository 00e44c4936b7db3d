// New settings every second under load, a file with a mistake among them. No request fails, no session is lost, and each
// good file holds at all replicas.
import { check, sleep } from 'k6';

import { isMine, newUser } from './lib/login.js';
import { SECONDS, WARM, arriving, common, director, keptUp, some, thresholds } from './lib/profile.js';
import { API, API_POST, act, checkUpstream, controlled, until, whole } from './lib/world.js';

export { handleSummary } from './lib/summary.js';

export const options = {
  ...common,
  scenarios: { ...arriving('api', 'warm'), director: director('direct', { startTime: `${WARM}s` }) },
  thresholds: thresholds({ ...keptUp, ...some('api'), ...some('director', 'count==1') }),
};

let user = null;

export const warm = whole(() => { user ??= newUser(__VU); });

export const api = whole(() => {
  user ??= newUser(__VU);
  if (__ITER % 5 === 4) {
    check(user.post(API_POST, 'api: post', 'x=1'), { 'api: POST is 2xx': ({ status }) => status >= 200 && status < 300 });
  } else {
    check(user.call('GET', API, 'api'), { 'api: 200, and for this user': isMine(user) });
  }
});

export const direct = whole(() => {
  const watcher = newUser(0);
  const end = Date.now() + SECONDS * 800;
  // However long they take: the mistake is in the third, and a good file follows.
  for (let turn = 1; Date.now() < end || (controlled && turn <= 4); turn += 1) {
    if (turn % 4 === 3) {
      act('reload/broken');
      for (const answer of watcher.everywhere(API, 'api: mistake')) check(answer, { 'reload: a mistake changes nothing': isMine(watcher) });
    }
    const told = act('reload');
    if (controlled) {
      const holds = until(() => {
        const answers = watcher.everywhere(API, 'api: reload');
        for (const answer of answers) check(answer, { 'reload: 200 meanwhile': isMine(watcher) });
        return answers.every(({ headers }) => headers['X-Turn'] === String(told.turn));
      }, 30);
      check(holds, { 'reload: the new settings hold at all replicas': Boolean });
    }
    sleep(controlled ? 0.7 : SECONDS);
  }
});

export const teardown = () => { checkUpstream(); };
