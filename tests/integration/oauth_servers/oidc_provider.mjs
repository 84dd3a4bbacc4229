// An authorization server for the tests: node oidc_provider.mjs CLIENT_ID CLIENT_SECRET LIFETIME
// Prints its origin as a line of JSON; each line {"secret": …} on standard input sets the client's secret, null
// removes the client, and is answered with a line. It ends with its standard input.
import { once } from 'node:events';
import { createServer } from 'node:http';
import { createInterface } from 'node:readline';

import { Provider } from 'oidc-provider';

const [clientId, firstSecret, lifetime] = process.argv.slice(2);
const RESOURCE = 'https://api.bits.example';
let secret = firstSecret;
// Standard output is for the test alone; the provider notes there which of its defaults it uses.
console.info = console.error;

const clientOf = (id, clientSecret) => ({
  client_id: id,
  client_secret: clientSecret,
  grant_types: ['client_credentials'],
  redirect_uris: [],
  response_types: [],
  scope: 'application person',
});

const clients = (id) => {
  if (id === 'resource-server') return clientOf(id, 'resource-server-secret');
  return id === clientId && secret !== null ? clientOf(id, secret) : undefined;
};

// In memory; what the server itself brings for that can't change its clients.
class Adapter {
  static #all = new Map();
  #name;

  constructor(name) {
    this.#name = name;
  }

  async find(id) {
    return this.#name === 'Client' ? clients(id) : Adapter.#all.get(`${this.#name}:${id}`);
  }

  async upsert(id, payload) {
    Adapter.#all.set(`${this.#name}:${id}`, payload);
  }

  async destroy(id) {
    Adapter.#all.delete(`${this.#name}:${id}`);
  }
}

const server = createServer();
server.listen(0, '127.0.0.1');
await once(server, 'listening');
const origin = `http://127.0.0.1:${server.address().port}`;

const provider = new Provider(origin, {
  adapter: Adapter,
  clientAuthMethods: ['client_secret_basic'],
  scopes: ['application', 'person'],
  ttl: { ClientCredentials: Number(lifetime) },
  features: {
    clientCredentials: { enabled: true },
    devInteractions: { enabled: false },
    introspection: { enabled: true },
    revocation: { enabled: true },
    resourceIndicators: {
      enabled: true,
      defaultResource: () => RESOURCE,
      useGrantedResource: () => true,
      getResourceServerInfo: () => ({
        scope: 'application',
        audience: RESOURCE,
        accessTokenFormat: 'opaque',
      }),
    },
  },
});
server.on('request', provider.callback());
console.log(JSON.stringify({ origin, token: '/token', introspection: '/token/introspection', revocation: '/token/revocation' }));

for await (const line of createInterface({ input: process.stdin })) {
  secret = JSON.parse(line).secret;
  console.log('{}');
}
server.closeAllConnections();
server.close();
