// One browser, as far as HTTP shows it: it keeps cookies, follows no redirect by itself, and sends the Fetch Metadata
// a browser would. k6's own cookie jar keeps Secure cookies off http://localhost, where browsers send them.
import http from 'k6/http';

import { SITE, TARGETS } from './world.js';

// A refusal is an answer: what is right is for the checks to say.
http.setResponseCallback(http.expectedStatuses({ min: 200, max: 599 }));

const NAVIGATE = {
  Accept: 'text/html,application/xhtml+xml',
  'Sec-Fetch-Mode': 'navigate',
  'Sec-Fetch-Dest': 'document',
  'Sec-Fetch-Site': 'none',
};
const SCRIPT = { Accept: 'application/json', 'Sec-Fetch-Mode': 'cors', 'Sec-Fetch-Dest': 'empty', 'Sec-Fetch-Site': 'same-origin' };

export class User {
  constructor(site = SITE) {
    this.site = site;
    this.jars = {};
  }

  /** The cookies of a URL's origin. */
  cookies(url = this.site) {
    const origin = /^https?:\/\/[^/]+/.exec(url)[0];
    return (this.jars[origin] ??= {});
  }

  /** `Cookie` for a URL of the site. */
  line(url = this.site) {
    return Object.entries(this.cookies(url)).map(([key, value]) => `${key}=${value}`).join('; ');
  }

  /** What k6 is to be told about a request. */
  params(url, headers, name) {
    const line = this.line(url);
    const sent = line ? { ...headers, Cookie: line } : headers;
    return { headers: sent, redirects: 0, jar: new http.CookieJar(), tags: { name }, timeout: '60s' };
  }

  send(method, url, body, headers, name) {
    const answer = http.request(method, url, body, this.params(url, headers, name));
    this.keep(answer, url);
    return answer;
  }

  keep(answer, url) {
    const jar = this.cookies(url);
    for (const [key, list] of Object.entries(answer.cookies)) {
      const cookie = list[list.length - 1];
      if (cookie.value === '' || cookie.max_age < 0) delete jar[key];
      else jar[key] = cookie.value;
    }
  }

  /** The address bar, a link or a form: `to` is a path of the site or a URL. */
  open(to, name, form) {
    const url = this.absolute(to);
    return this.send(form ? 'POST' : 'GET', url, form ?? null, NAVIGATE, name);
  }

  /** `fetch` in a page of the site. */
  call(method, path, name, { body = null, headers = {} } = {}) {
    return this.send(method, this.site + path, body, this.script(method, headers), name);
  }

  /** The same GET at each replica, at the same time: one answer each. */
  everywhere(path, name) {
    const host = /^https?:\/\/([^/]+)/.exec(this.site)[1];
    const headers = this.script('GET', TARGETS.length > 1 ? { Host: host } : {});
    const answers = http.batch(TARGETS.map((target) => ['GET', target + path, null, this.params(this.site, headers, name)]));
    answers.forEach((answer) => this.keep(answer, this.site));
    return answers;
  }

  script(method, headers) {
    const unsafe = method !== 'GET' ? { Origin: this.site } : {};
    return { ...SCRIPT, ...unsafe, ...headers };
  }

  /** `fetch` with the CSRF token echoed. */
  post(path, name, body = null) {
    return this.call('POST', path, name, { body, headers: { 'X-XSRF-TOKEN': this.token() } });
  }

  /** The CSRF token. */
  token() {
    return decodeURIComponent(this.cookies()['XSRF-TOKEN'] ?? '');
  }

  absolute(to, base = this.site) {
    return to.startsWith('/') ? /^https?:\/\/[^/]+/.exec(base)[0] + to : to;
  }
}
