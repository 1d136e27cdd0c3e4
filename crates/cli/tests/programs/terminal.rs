//! What is asked on a terminal, where somebody can answer.

use crate::support::Node;
use crate::support::person::Person;
use crate::support::terminal::OnTerminal;

#[test]
fn a_command_that_needs_a_credential_offers_the_sign_in_in_the_browser() {
    let folder = tempfile::tempdir().unwrap();
    let node = Node::start(&folder.path().join("data/node1"));
    let person = Person::new(folder.path(), &node.peer());
    for no in ["n\n", "no\n", "what?\n", "\u{4}"] {
        let mut command = OnTerminal::start(&person, &["storage", "list"]);
        command.shows("Sign in with a wallet in the browser now? [Y/n]");
        command.types(no);
        assert_eq!(command.code(), Some(3), "{no:?}");
        command.shows("DEBROS_API_KEY");
    }
    for yes in ["\n", "y\n", "Yes\n"] {
        let mut command = OnTerminal::start(&person, &["storage", "list", "-n", "shop"]);
        command.shows("[Y/n]");
        command.types(yes);
        command.shows(&format!("http://{}/v1/auth/login?callback=", node.address));
        command.shows("&namespace=shop");
    }
}
