use super::{Permission, Role, Scopes, is_permitted, require_permission};
use debros_proto::Code;
use proptest::prelude::{any, proptest};

const ROLES: [Role; 5] = [Role::Reader, Role::Writer, Role::Admin, Role::Owner, Role::Operator];

fn scopes(names: &[&str]) -> Scopes {
    Scopes::parse(names.iter().copied()).unwrap()
}

#[test]
fn roles_include_the_lesser_ones_and_scopes_restrict_them() {
    let may = |role, names: &[&str], permission| is_permitted(role, scopes(names), permission);
    assert!(
        may(Role::Reader, &[], Permission::DbRead) && !may(Role::Reader, &[], Permission::DbWrite)
    );
    assert!(
        may(Role::Writer, &[], Permission::StorageWrite)
            && !may(Role::Writer, &[], Permission::Keys)
    );
    assert!(may(Role::Admin, &[], Permission::Keys) && may(Role::Admin, &[], Permission::Members));
    assert!(
        !may(Role::Admin, &[], Permission::Operate) && !may(Role::Owner, &[], Permission::Operate)
    );
    assert!(
        may(Role::Owner, &[], Permission::Members) && !may(Role::Writer, &[], Permission::Members)
    );
    assert!(may(Role::Operator, &[], Permission::Operate));
    assert!(may(Role::Writer, &["storage:read"], Permission::StorageRead));
    assert!(!may(Role::Writer, &["storage:read"], Permission::StorageWrite));
    assert!(
        !may(Role::Admin, &["storage:read"], Permission::Keys),
        "a restricted key does not manage keys"
    );
    assert!(!may(Role::Owner, &["storage:read"], Permission::Members), "nor members");
    assert!(!may(Role::Operator, &["storage:read"], Permission::Operate), "nor the node");
    assert!(may(Role::Writer, &["db:write"], Permission::DbRead));
    assert!(
        !may(Role::Reader, &["db:write"], Permission::DbWrite),
        "a scope never widens the role"
    );
}

#[test]
fn what_is_missing_is_said() {
    let error =
        require_permission(Role::Reader, scopes(&[]), Permission::StorageWrite).unwrap_err();
    assert_eq!(error.code, Code::Forbidden);
    assert_eq!(error.message, "the credential's role is reader, and storage:write needs writer");
    let error = require_permission(Role::Writer, scopes(&["db:read"]), Permission::StorageWrite)
        .unwrap_err();
    assert_eq!(error.message, "the credential's scopes do not include storage:write");
    let error = require_permission(Role::Writer, scopes(&[]), Permission::Members).unwrap_err();
    assert_eq!(error.message, "the credential's role is writer, and managing members needs admin");
}

#[test]
fn nobody_gives_ownership_and_the_owner_alone_gives_admin() {
    let granters =
        |role| ROLES.into_iter().filter(|granter| granter.may_grant(role)).collect::<Vec<_>>();
    assert_eq!(granters(Role::Reader), [Role::Admin, Role::Owner, Role::Operator]);
    assert_eq!(granters(Role::Writer), [Role::Admin, Role::Owner, Role::Operator]);
    assert_eq!(granters(Role::Admin), [Role::Owner, Role::Operator]);
    assert!(granters(Role::Owner).is_empty() && granters(Role::Operator).is_empty());
}

#[test]
fn roles_have_an_order_and_names() {
    assert!(ROLES.is_sorted());
    assert_eq!(ROLES.map(Role::name), ["reader", "writer", "admin", "owner", "operator"]);
    for role in [Role::Reader, Role::Writer, Role::Admin] {
        assert_eq!(Role::parse(role.name()).unwrap(), role);
    }
    for other in ["owner", "operator", "", "Admin", "admin "] {
        assert_eq!(Role::parse(other).unwrap_err().code, Code::InvalidArgument, "{other}");
    }
}

#[test]
fn scopes_are_read_as_they_are_written() {
    let all = [
        "db:read",
        "db:write",
        "storage:read",
        "storage:write",
        "pubsub:publish",
        "pubsub:subscribe",
        "apps:read",
        "apps:write",
    ];
    assert_eq!(scopes(&all).names(), all);
    assert!(scopes(&[]).is_empty() && !scopes(&["db:read"]).is_empty());
    for other in ["", "db", "db:admin", "DB:read", "members:write", "*"] {
        assert_eq!(Scopes::parse([other]).unwrap_err().code, Code::InvalidArgument, "{other}");
    }
}

#[test]
fn a_role_comes_to_no_more_than_its_scopes_name() {
    for (names, reader, admin) in [
        (&[][..], Role::Reader, Role::Admin),
        (&["db:read", "storage:read", "pubsub:subscribe", "apps:read"], Role::Reader, Role::Reader),
        (&["db:read", "storage:write"], Role::Reader, Role::Writer),
    ] {
        assert_eq!(scopes(names).role_within(Role::Reader), reader, "{names:?}");
        assert_eq!(scopes(names).role_within(Role::Admin), admin, "{names:?}");
    }
}

proptest! {
    #[test]
    fn any_text_is_read_or_refused(text in any::<String>()) {
        let _ = (Role::parse(&text), Scopes::parse(text.split(' ')));
    }
}
