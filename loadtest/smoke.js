// Every endpoint of `cloakroom demo` answers as specified, for some users at once. See README.md.
import { check, fail } from 'k6';
import { User } from './lib/user.js';

const SITE = __ENV.BASE_URL || 'http://localhost:8080';
const PEOPLE = ['alice', 'bob'];

export const options = {
  scenarios: {
    smoke: { executor: 'per-vu-iterations', vus: 4, iterations: 5, maxDuration: '2m' },
  },
  // Every check must hold, and there must have been some.
  thresholds: { checks: ['rate==1'], iterations: ['count==20'] },
};

/** A redirect's target, or the end of this iteration: nothing behind it could be right. */
function redirect(answer, what) {
  const good = check(answer, {
    [`${what}: redirects`]: ({ status, headers }) => (status === 302 || status === 303) && Boolean(headers.Location),
  });
  if (!good) fail(`${what} answered ${answer.status}`);
  return answer.headers.Location;
}

const problem = (status, code) => (answer) =>
  answer.status === status &&
  (answer.headers['Content-Type'] ?? '').startsWith('application/problem+json') &&
  answer.json('code') === code &&
  answer.headers['Cloakroom-Error'] === code;

function logIn(user, person) {
  const provider = redirect(user.open('/auth/login?return_to=/', 'login'), 'login');
  const form = user.open(provider, 'provider: form');
  check(form, { 'provider: shows its form': ({ status }) => status === 200 });
  const action = form.html('form').attr('action') ?? fail('no form at the provider');
  const sent = user.open(user.absolute(action, provider), 'provider: choice', { login: person });
  const callback = redirect(sent, 'provider: choice');
  const answer = user.open(callback, 'callback');
  check(answer, {
    'callback: ends the login': ({ status }) => status === 200 || status === 303,
    'callback: is not stored': ({ headers }) => /no-store/.test(headers['Cache-Control'] ?? ''),
    'callback: shows no token': ({ body }) => !/eyJ[\w-]+\.eyJ/.test(body),
  });
}

export default function () {
  const person = PEOPLE[(__VU + __ITER) % PEOPLE.length];
  const user = new User(SITE);

  // A stranger.
  check(user.open('/', 'page'), { 'page: is public': ({ status }) => status === 200 });
  check(user.call('GET', '/api/whoami', 'api'), { 'api: 401 without a session': problem(401, 'session_missing') });
  check(user.call('GET', '/auth/userinfo', 'userinfo'), { 'userinfo: 401 without a session': problem(401, 'session_missing') });
  check(user.call('GET', '/auth/session', 'session'), {
    'session: says that nobody is logged in': (answer) => answer.status === 200 && answer.json('authenticated') === false,
  });
  check(user.open('/auth/callback?code=x&state=y', 'callback'), {
    'callback: refuses what it did not begin': ({ status }) => status >= 400 && status < 500,
  });

  // The same, logged in.
  logIn(user, person);
  check(user.call('GET', '/api/whoami', 'api'), {
    'api: knows this user and no other': (answer) => answer.status === 200 && answer.json('user') === person,
    'api: saw the token': (answer) => answer.json('authenticated') === true,
    'api: saw no cookie of ours': (answer) => answer.json('headers').every(([name]) => name !== 'cookie'),
  });
  check(user.call('GET', '/auth/userinfo', 'userinfo'), {
    'userinfo: is this user’s': (answer) => answer.status === 200 && answer.json('preferred_username') === person,
  });
  check(user.call('GET', '/auth/session', 'session'), {
    'session: says who is logged in': (answer) => answer.status === 200 && answer.json('authenticated') === true,
  });

  // Unsafe methods.
  check(user.post('/api/echo', 'api: post', '{"hello":"api"}'), {
    'csrf: the echoed token passes': (answer) => answer.status === 200 && answer.json('body_bytes') === 15,
  });
  check(user.call('POST', '/api/echo', 'api: post', { body: 'x' }), { 'csrf: none is refused': problem(403, 'csrf_failed') });
  check(user.call('POST', '/api/echo', 'api: post', { body: 'x', headers: { 'X-XSRF-TOKEN': 'guess' } }), {
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
  check(user.call('GET', '/api/whoami', 'api'), { 'api: 401 after logout': (answer) => answer.status === 401 });
  const thief = new User(SITE);
  Object.assign(thief.cookies(), kept);
  check(thief.call('GET', '/api/whoami', 'api'), { 'api: 401 for a copy of the old cookie': (answer) => answer.status === 401 });
}
