// How much and how long: PROFILE, with RATE, SECONDS, SESSIONS, VUS in place of single numbers.
const PROFILES = {
  //          requests/s, seconds, browsers at a time, sessions of a storm
  ci: { rate: 20, seconds: 6, vus: 6, sessions: 120 },
  smoke: { rate: 20, seconds: 15, vus: 20, sessions: 200 },
  average: { rate: 200, seconds: 300, vus: 100, sessions: 1000 },
  stress: { rate: 600, seconds: 600, vus: 300, sessions: 3000 },
  spike: { rate: 100, seconds: 180, vus: 300, sessions: 1000 },
  soak: { rate: 100, seconds: 4 * 3600, vus: 100, sessions: 1000 },
  breakpoint: { rate: 5000, seconds: 1200, vus: 1000, sessions: 5000 },
};

export const PROFILE = __ENV.PROFILE || 'smoke';
const chosen = PROFILES[PROFILE];
if (!chosen) throw new Error(`PROFILE is one of ${Object.keys(PROFILES).join(', ')}`);
const number = (name) => Number(__ENV[name.toUpperCase()] || chosen[name]);

export const RATE = number('rate');
export const SECONDS = number('seconds');
export const VUS = number('vus');
export const SESSIONS = number('sessions');
/** On a machine that does other things as well, times say nothing. */
export const TIMED = PROFILE !== 'ci';

const part = (share) => `${Math.max(1, Math.round(SECONDS * share))}s`;

/** Seconds in which the browsers of an open model log in. */
export const WARM = 3 + Math.ceil(VUS / 10);

/**
 * An open model: calls come at their rate, however slow the answers are. First every browser runs `warm`, so that no call waits
 * for a login: k6 gives the same ones to the scenario that follows.
 */
export function arriving(exec, warm) {
  return {
    warm: journeys(warm, VUS, { maxDuration: '60s' }),
    [exec]: { exec, preAllocatedVUs: VUS, maxVUs: VUS * 4, startTime: `${WARM}s`, ...rates() },
  };
}

function rates() {
  const stages = (...list) => list.map(([target, share]) => ({ target, duration: part(share) }));
  switch (PROFILE) {
    case 'stress':
      return { executor: 'ramping-arrival-rate', startRate: Math.ceil(RATE / 4), stages: stages([RATE, 0.3], [RATE, 0.5], [0, 0.2]) };
    case 'spike':
      return {
        executor: 'ramping-arrival-rate', startRate: RATE,
        stages: stages([RATE, 0.4], [RATE * 10, 0.05], [RATE * 10, 0.2], [RATE, 0.05], [RATE, 0.3]),
      };
    case 'breakpoint':
      return { executor: 'ramping-arrival-rate', startRate: 10, stages: stages([RATE, 1]) };
    default:
      return { executor: 'constant-arrival-rate', rate: RATE, duration: part(1) };
  }
}

/** Each of `vus` browsers makes one long iteration. */
export function journeys(exec, vus = VUS, more = {}) {
  return { exec, executor: 'per-vu-iterations', vus, iterations: 1, maxDuration: `${SECONDS + 300}s`, ...more };
}

/** The one who has things done meanwhile. */
export const director = (exec, more = {}) => journeys(exec, 1, more);

/** What every script demands: each check holds, and there were some. `more` on top. */
export function thresholds(more = {}) {
  const hopeless = PROFILE === 'breakpoint' ? [{ threshold: 'rate==1', abortOnFail: true, delayAbortEval: '10s' }] : ['rate==1'];
  return { checks: hopeless, iterations: ['count>0'], ...more };
}

/** For journeys: every browser came to its end, and `more` others. */
export const allOf = (more = 0) => ({ iterations: [`count==${VUS + more}`] });
/** For a scenario among others: their iterations would do for `iterations` as well. */
export const some = (scenario, rule = 'count>0') => ({ [`iterations{scenario:${scenario}}`]: [rule] });
/** For an open model: k6 itself kept up, else its numbers are no good. */
export const keptUp = TIMED && PROFILE !== 'breakpoint' ? { dropped_iterations: ['count==0'] } : {};
/** For all: certificates of one's own at a real cluster. */
export const common = {
  insecureSkipTLSVerify: __ENV.INSECURE === '1',
  summaryTrendStats: ['avg', 'med', 'p(95)', 'p(99)', 'max'],
  setupTimeout: '120s',
  teardownTimeout: '120s',
};
