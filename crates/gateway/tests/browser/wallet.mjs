// A browser wallet (EIP-1193) for tests: it announces itself by EIP-6963, and its key signs in Node.js.

import { Wallet } from 'ethers'

const ICON =
  'data:image/svg+xml,<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 32 32"><rect width="32" height="32" rx="8" fill="%23e2761b"/><path d="M9 22V10l7 7 7-7v12" fill="none" stroke="white" stroke-width="3"/></svg>'

/**
 * Puts wallets into every page of a context. Each is `{ name, key, behaviour, announce, icon }`; `behaviour` names what
 * the wallet does when it is asked to sign: `sign`, `refuse`, `pending`, `refuse-once`, `change-account`, `change-chain`,
 * `wait`.
 */
export async function install (context, wallets) {
  const signers = wallets.map(({ key }) => new Wallet(key))
  await context.exposeFunction('signInNode', async (index, hex) => {
    const message = Buffer.from(hex.slice(2), 'hex')
    return await signers[index].signMessage(message)
  })
  const described = wallets.map((wallet, index) => ({
    name: wallet.name,
    icon: wallet.icon ?? ICON,
    behaviour: wallet.behaviour ?? 'sign',
    announce: wallet.announce ?? true,
    // As wallets give it: with its checksum.
    account: signers[index].address
  }))
  await context.addInitScript(inject, described)
}

// Runs in the page.
function inject (wallets) {
  const asked = (window.askedOfWallets = [])
  const rpcError = (code, message) => Object.assign(new Error(message), { code })
  wallets.forEach((wallet, index) => {
    const listeners = {}
    const emit = (event, value) => (listeners[event] ?? []).forEach((listener) => listener(value))
    let behaviour = wallet.behaviour
    const provider = {
      on: (event, listener) => (listeners[event] ??= []).push(listener),
      removeListener: (event, listener) => {
        listeners[event] = (listeners[event] ?? []).filter((other) => other !== listener)
      },
      async request ({ method, params }) {
        asked.push({ wallet: index, method, params })
        switch (method) {
          case 'eth_requestAccounts':
            if (behaviour === 'pending') throw rpcError(-32002, 'already pending')
            return [wallet.account]
          case 'eth_accounts':
            return [wallet.account]
          case 'eth_chainId':
            return '0x1'
          case 'personal_sign':
            if (behaviour === 'refuse') throw rpcError(4001, 'User rejected the request.')
            if (behaviour === 'refuse-once') {
              behaviour = 'sign'
              throw rpcError(4001, 'User rejected the request.')
            }
            if (behaviour === 'change-account') {
              emit('accountsChanged', ['0x00000000000000000000000000000000000000ff'])
              return await new Promise(() => {})
            }
            if (behaviour === 'change-chain') {
              emit('chainChanged', '0x89')
              return await new Promise(() => {})
            }
            if (behaviour === 'wait') return await new Promise((resolve) => { window.signNow = () => resolve(window.signInNode(index, params[0])) })
            if (behaviour === 'other-key') return await window.signInNode(1 - index, params[0])
            if (params[1] !== wallet.account) throw rpcError(4100, 'not my account')
            return await window.signInNode(index, params[0])
          default:
            throw rpcError(-32601, 'not supported')
        }
      }
    }
    if (!wallet.announce) {
      window.ethereum = provider
      return
    }
    const detail = Object.freeze({
      info: Object.freeze({ uuid: `uuid-${index}`, name: wallet.name, icon: wallet.icon, rdns: 'example.test' }),
      provider
    })
    const announce = () => window.dispatchEvent(new CustomEvent('eip6963:announceProvider', { detail }))
    window.addEventListener('eip6963:requestProvider', announce)
    announce()
  })
}
