// Where everything is, by environment variables, and what can be asked of it. On a cluster that offers no counters and no
// control (STAGE_URL, CONTROL_URL) what needs them is left out.
import { check, fail, sleep } from 'k6';
import http from 'k6/http';
import { SharedArray } from 'k6/data';

/** The public address, as browsers see it. */
export const SITE = __ENV.BASE_URL || 'http://localhost:8080';
/** Addresses of single replicas, where they can be reached past the load balancer; they serve the site's host. */
export const TARGETS = (__ENV.TARGETS || SITE).split(',');
/** Without the proxy. */
export const DIRECT = __ENV.DIRECT_URL || '';
const STAGE = __ENV.STAGE_URL || '';
const CONTROL = __ENV.CONTROL_URL || '';

/** A path behind login that answers GET with 200, and one that takes POST, to any content. */
export const API = __ENV.API_PATH || '/api/whoami';
export const API_POST = __ENV.API_POST_PATH || '/api/echo';
/** One that takes POST and its time. */
export const SLOW = __ENV.API_POST_PATH || '/api/slow';
/** A path that needs no session. */
export const PUBLIC = __ENV.PUBLIC_PATH || '/';

const PEOPLE = __ENV.USERS_FILE
  ? new SharedArray('people', () => JSON.parse(open(__ENV.USERS_FILE)))
  : null;

/** User number `place`: `{ name, password }`. */
export const person = (place) => (PEOPLE ? PEOPLE[place % PEOPLE.length] : { name: `user${place}`, password: 'none' });
/** How many different users there are at most. */
export const people = PEOPLE ? PEOPLE.length : Infinity;

const quiet = (name) => ({ tags: { name }, timeout: '180s' });

function asked(answer, what) {
  if (!check(answer, { 'the stage does what it is asked': ({ status }) => status === 200 })) fail(`${what}: ${answer.status} ${answer.body}`);
  return answer.json();
}

/** Whether things can be made to happen from here, or somebody must do them by hand. */
export const controlled = CONTROL !== '';
export const counted = STAGE !== '';

/** Has something done to the surroundings; on a cluster somebody must do it meanwhile. Returns when it is done. */
export function act(what, method = 'POST') {
  if (CONTROL) return asked(http.request(method, `${CONTROL}/${what}`, null, quiet(`control: ${what}`)), what);
  console.warn(`do this now: ${what}`);
  return null;
}

/** `{ provider, upstream }`, or null where nobody counts. */
export function counters() {
  return STAGE ? asked(http.get(`${STAGE}/counters`, quiet('counters')), 'counters') : null;
}

/** The provider's manners. */
export function provider(settings) {
  if (STAGE) asked(http.post(`${STAGE}/provider`, JSON.stringify(settings), quiet('provider: manners')), 'provider');
}

/** By when the token of a login that is just over ends, if all shall end at `planned`: the provider gives a late one ten seconds. */
export const tokenEnd = (planned) => Math.max(planned, Date.now() / 1000 + 10);

/** The provider ends the sessions of a user. */
export function logoutElsewhere(name) {
  asked(http.post(`${STAGE}/logout/${encodeURIComponent(name)}`, null, quiet('provider: logout elsewhere')), 'logout elsewhere');
}

/** What the upstream must never have seen; `late` is for how many milliseconds a token may be over. For `teardown`. */
export function checkUpstream(late = 0) {
  const seen = counters();
  if (!seen) return null;
  console.log(JSON.stringify(seen));
  check(seen, {
    'upstream: no expired token': ({ upstream }) => upstream.expired === 0 || upstream.latest_ms < late,
    'upstream: no request without a token behind login': ({ upstream }) => upstream.absent === 0,
    'provider: no refresh token shown twice': (all) => all.provider.reused === 0,
    'provider: nothing refused': (all) => all.provider.refused === 0,
  });
  return seen;
}

/** Polls until `probe` gives something true, and returns that; after `seconds` something false. */
export function until(probe, seconds, every = 0.1) {
  const end = Date.now() + seconds * 1000;
  for (;;) {
    const got = probe();
    if (got || Date.now() >= end) return got;
    sleep(every);
  }
}

/**
 * Waits until so many users have reached the API since the stage was set up: their logins are over then, and their sessions
 * stored. All of them call it right after the login.
 */
export function allLoggedIn(count, seconds = 120) {
  if (!STAGE) return sleep(Number(__ENV.LEAD || 10));
  const there = until(() => counters().upstream.users >= count, seconds, 0.3);
  if (!check(there, { 'all have logged in': Boolean })) fail('not all have logged in');
}

/**
 * For users: gives a function that says whether to go on. So many seconds at least, and until the director is done; on a cluster,
 * where nobody says that, the seconds are all. A director that is never done is a failed check.
 */
export function goingOn(seconds, most = seconds + 200) {
  const begun = Date.now();
  let next = begun + seconds * 1000;
  return () => {
    if (Date.now() < next) return true;
    if (!STAGE || asked(http.get(`${STAGE}/done`, quiet('done')), 'done').done) return false;
    next = Date.now() + 500;
    return check(Date.now() - begun, { 'the director is done in time': (took) => took < most * 1000 });
  };
}

/** An iteration that breaks off is a failed check, not just a line in the log. */
export const whole = (work) => (...data) => {
  let broke = null;
  try {
    work(...data);
  } catch (error) {
    broke = error;
    console.error(String(error));
  }
  check(broke, { 'went through to the end': (error) => error === null });
};

/** The same for a director: whatever comes, the users are told that it is done. */
export const directing = (work) => whole((...data) => {
  try {
    work(...data);
  } finally {
    if (STAGE) asked(http.post(`${STAGE}/done`, null, quiet('done')), 'done');
  }
});
