// Forged requests: each lacks one thing that a page of the site would send. All are refused, and none reaches the upstream.
import { check } from 'k6';

import { newUser, problem } from './lib/login.js';
import { SECONDS, VUS, common, thresholds } from './lib/profile.js';
import { API_POST, checkUpstream, whole } from './lib/world.js';

export { handleSummary } from './lib/summary.js';

export const options = {
  ...common,
  scenarios: { csrf: { executor: 'constant-vus', vus: VUS, duration: `${SECONDS}s`, gracefulStop: '60s' } },
  thresholds: thresholds(),
};

// The upstream of these tests counts what comes to this path.
const FORGED = __ENV.API_POST_PATH || '/api/forged';
const METHODS = ['POST', 'PUT', 'PATCH', 'DELETE'];

let user = null;
let other = null;

export const forge = (mine, foreign) => {
  const token = mine.token();
  const right = { 'X-XSRF-TOKEN': token };
  return {
    'no token': {},
    'a guess': { 'X-XSRF-TOKEN': 'guess' },
    'the token of somebody else': { 'X-XSRF-TOKEN': foreign.token() },
    'a token cut short': { 'X-XSRF-TOKEN': token.slice(0, -1) },
    'another origin': { ...right, Origin: 'https://evil.example' },
    'an origin that looks like ours': { ...right, Origin: `${mine.site}.evil.example` },
    'the origin null': { ...right, Origin: 'null' },
    'no origin, and another site says so': { ...right, Origin: '', 'Sec-Fetch-Site': 'cross-site' },
    'a form of another site': {
      Origin: 'https://evil.example', 'Sec-Fetch-Site': 'cross-site', 'Content-Type': 'application/x-www-form-urlencoded',
    },
  };
};

export default whole(() => {
  user ??= newUser(2 * __VU);
  other ??= newUser(2 * __VU + 1);
  for (const [what, headers] of Object.entries(forge(user, other))) {
    const method = METHODS[(__ITER + what.length) % METHODS.length];
    check(user.call(method, FORGED, 'forged', { body: 'x=1', headers }), { [`csrf: ${what} is refused`]: problem(403, 'csrf_failed') });
  }
  // A cookie planted together with its header.
  const jar = user.cookies();
  const own = jar['XSRF-TOKEN'];
  jar['XSRF-TOKEN'] = encodeURIComponent(other.token());
  check(user.post(FORGED, 'forged', 'x=1'), { 'csrf: a planted cookie with its header is refused': problem(403, 'csrf_failed') });
  jar['XSRF-TOKEN'] = own;
  // What the page sends passes, also after all that.
  check(user.post(API_POST, 'api: post', 'x=1'), { 'csrf: the real one passes': ({ status }) => status >= 200 && status < 300 });
});

export function teardown() {
  const seen = checkUpstream();
  if (seen) check(seen, {
    'upstream: no forged request': ({ upstream }) => upstream.forged === 0,
    'upstream: the real ones came': ({ upstream }) => upstream.unsafe > 0,
  });
}
