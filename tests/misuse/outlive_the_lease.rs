use keepalive::guard::Lease;

fn outlive(lease: Lease<u32>) {
    let permit = lease.permit();
    lease.finish(1); //~ E0505
    let _profile = permit.profile();
}

fn main() {}
