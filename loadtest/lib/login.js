// The way through the provider's form, hop by hop. The form takes `username` and `password`, as Keycloak's does, or
// `login`, as the demo's: all three are sent.
import { check, fail } from 'k6';

import { API, person } from './world.js';
import { User } from './user.js';

/** A redirect's target, or the end of this iteration: nothing behind it could be right. */
export function redirect(answer, what) {
  const good = check(answer, {
    [`${what}: redirects`]: ({ status, headers }) => (status === 302 || status === 303) && Boolean(headers.Location),
  });
  if (!good) fail(`${what} answered ${answer.status} ${answer.error}`);
  return answer.headers.Location;
}

export const problem = (status, code) => (answer) =>
  answer.status === status &&
  (answer.headers['Content-Type'] ?? '').startsWith('application/problem+json') &&
  answer.json('code') === code &&
  answer.headers['Cloakroom-Error'] === code;

/** Goes on from page to page of the provider until it sends the browser back: that address. */
function throughProvider(user, address, { name, password }) {
  let answer = user.open(address, 'provider: page');
  let from = address;
  for (let hops = 0; hops < 6; hops += 1) {
    const to = answer.headers.Location;
    if (answer.status === 302 || answer.status === 303) {
      if (to.startsWith(`${user.site}/`)) return to;
      from = user.absolute(to, from);
      answer = user.open(from, 'provider: page');
      continue;
    }
    const action = answer.status === 200 ? answer.html('form').attr('action') : null;
    if (!action) break;
    from = user.absolute(action, from);
    answer = user.open(from, 'provider: form', { username: name, password: password ?? '', login: name });
  }
  return null;
}

export function logIn(user, who) {
  const provider = redirect(user.open('/auth/login?return_to=/', 'login'), 'login');
  const callback = throughProvider(user, provider, who);
  const back = check(callback, {
    'provider: sends the browser back': Boolean,
    'provider: no token in the address': (address) => !/(access|id|refresh)_token=/.test(address ?? ''),
  });
  if (!back) fail('the provider did not send the browser back');
  const answer = user.open(callback, 'callback');
  const good = check(answer, {
    'callback: ends the login': ({ status }) => status === 200 || status === 303,
    'callback: is not stored': ({ headers }) => /no-store/.test(headers['Cache-Control'] ?? ''),
    'callback: shows no token': ({ body }) => !/eyJ[\w-]+\.eyJ/.test(body),
  });
  if (!good) fail(`callback answered ${answer.status}`);
}

/** A browser of user number `place`, logged in. */
export function newUser(place) {
  const user = new User();
  user.who = person(place);
  logIn(user, user.who);
  return user;
}

/** The API answered, and to nobody else: what it tells of the user, where it does, is this one. */
export function isMine(user) {
  return (answer) => answer.status === 200 && (API !== '/api/whoami' || answer.json('user') === user.who.name);
}
