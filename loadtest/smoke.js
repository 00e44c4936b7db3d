// Every endpoint of `cloakroom demo` answers as specified, for some users at once. See README.md.
import { check } from 'k6';

import { logIn, problem, redirect } from './lib/login.js';
import { common, thresholds } from './lib/profile.js';
import { User } from './lib/user.js';
import { API, API_POST, people, person, whole } from './lib/world.js';

export { handleSummary } from './lib/summary.js';

/** The sample API says what reached it; of another one only statuses are known. */
const SAMPLE = API === '/api/whoami';
/** Those of the demo, unless others are given. */
const someone = (place) => (people === Infinity ? { name: ['alice', 'bob'][place % 2] } : person(place));

export const options = {
  ...common,
  scenarios: {
    smoke: { executor: 'per-vu-iterations', vus: 4, iterations: 5, maxDuration: '2m' },
  },
  thresholds: thresholds({ iterations: ['count==20'] }),
};

export default whole(() => {
  const who = someone(__VU + __ITER);
  const user = new User();

  // A stranger.
  check(user.open('/', 'page'), { 'page: is public': ({ status }) => status === 200 });
  check(user.call('GET', API, 'api'), { 'api: 401 without a session': problem(401, 'session_missing') });
  check(user.call('GET', '/auth/userinfo', 'userinfo'), { 'userinfo: 401 without a session': problem(401, 'session_missing') });
  check(user.call('GET', '/auth/session', 'session'), {
    'session: says that nobody is logged in': (answer) => answer.status === 200 && answer.json('authenticated') === false,
  });
  check(user.open('/auth/callback?code=x&state=y', 'callback'), {
    'callback: refuses what it did not begin': ({ status }) => status >= 400 && status < 500,
  });

  // The same, logged in.
  logIn(user, who);
  const api = user.call('GET', API, 'api');
  check(api, { 'api: 200 with a session': ({ status }) => status === 200 });
  if (SAMPLE) check(api, {
    'api: knows this user and no other': (answer) => answer.json('user') === who.name,
    'api: saw the token': (answer) => answer.json('authenticated') === true,
    'api: saw no cookie of ours': (answer) => answer.json('headers').every(([name]) => name !== 'cookie'),
  });
  check(user.call('GET', '/auth/userinfo', 'userinfo'), {
    'userinfo: is this user’s': (answer) => answer.status === 200 && answer.json('preferred_username') === who.name,
  });
  check(user.call('GET', '/auth/session', 'session'), {
    'session: says who is logged in': (answer) => answer.status === 200 && answer.json('authenticated') === true,
  });

  // Unsafe methods.
  check(user.post(API_POST, 'api: post', '{"hello":"api"}'), {
    'csrf: the echoed token passes': (answer) => answer.status >= 200 && answer.status < 300 && (!SAMPLE || answer.json('body_bytes') === 15),
  });
  check(user.call('POST', API_POST, 'api: post', { body: 'x' }), { 'csrf: none is refused': problem(403, 'csrf_failed') });
  check(user.call('POST', API_POST, 'api: post', { body: 'x', headers: { 'X-XSRF-TOKEN': 'guess' } }), {
    'csrf: a guess is refused': problem(403, 'csrf_failed'),
  });

  // The end.
  const kept = { ...user.cookies() };
  const logout = user.post('/auth/logout', 'logout');
  check(logout, {
    'logout: names the provider’s page': (answer) => answer.status === 200 && /^https?:/.test(answer.json('redirect')),
  });
  const back = redirect(user.open(logout.json('redirect'), 'provider: logout'), 'provider: logout');
  check(user.open(back, 'logged out'), { 'logged out: has a page': ({ status }) => status === 200 });
  check(user.call('GET', API, 'api'), { 'api: 401 after logout': (answer) => answer.status === 401 });
  const thief = new User();
  Object.assign(thief.cookies(), kept);
  check(thief.call('GET', API, 'api'), { 'api: 401 for a copy of the old cookie': (answer) => answer.status === 401 });
});
