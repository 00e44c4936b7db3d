// One browser, as far as HTTP shows it: it keeps cookies, follows no redirect by itself, and sends the Fetch Metadata
// a browser would. k6's own cookie jar keeps Secure cookies off http://localhost, where browsers send them.
import http from 'k6/http';

// A refusal is an answer: what is right is for the checks to say.
http.setResponseCallback(http.expectedStatuses({ min: 200, max: 499 }));

const NAVIGATE = {
  Accept: 'text/html,application/xhtml+xml',
  'Sec-Fetch-Mode': 'navigate',
  'Sec-Fetch-Dest': 'document',
  'Sec-Fetch-Site': 'none',
};
const SCRIPT = { Accept: 'application/json', 'Sec-Fetch-Mode': 'cors', 'Sec-Fetch-Dest': 'empty', 'Sec-Fetch-Site': 'same-origin' };

export class User {
  constructor(site) {
    this.site = site;
    this.jars = {};
  }

  /** The cookies of a URL's origin. */
  cookies(url = this.site) {
    const origin = /^https?:\/\/[^/]+/.exec(url)[0];
    return (this.jars[origin] ??= {});
  }

  send(method, url, body, headers, name) {
    const jar = this.cookies(url);
    const line = Object.entries(jar).map(([key, value]) => `${key}=${value}`).join('; ');
    const answer = http.request(method, url, body, {
      headers: line ? { ...headers, Cookie: line } : headers,
      redirects: 0,
      jar: new http.CookieJar(),
      tags: { name },
    });
    for (const [key, list] of Object.entries(answer.cookies)) {
      const cookie = list[list.length - 1];
      if (cookie.value === '' || cookie.max_age < 0) delete jar[key];
      else jar[key] = cookie.value;
    }
    return answer;
  }

  /** The address bar, a link or a form: `to` is a path of the site or a URL. */
  open(to, name, form) {
    const url = this.absolute(to);
    return this.send(form ? 'POST' : 'GET', url, form ?? null, NAVIGATE, name);
  }

  /** `fetch` in a page of the site. */
  call(method, path, name, { body = null, headers = {} } = {}) {
    const unsafe = method !== 'GET' ? { Origin: this.site } : {};
    return this.send(method, this.site + path, body, { ...SCRIPT, ...unsafe, ...headers }, name);
  }

  /** `fetch` with the CSRF token echoed. */
  post(path, name, body = null) {
    const token = this.cookies()['XSRF-TOKEN'] ?? '';
    return this.call('POST', path, name, { body, headers: { 'X-XSRF-TOKEN': decodeURIComponent(token) } });
  }

  absolute(to, base = this.site) {
    return to.startsWith('/') ? /^https?:\/\/[^/]+/.exec(base)[0] + to : to;
  }
}
