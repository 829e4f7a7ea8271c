// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

import {ERC20} from "@openzeppelin/contracts/token/ERC20/ERC20.sol";

/// @title A token for the demo and the tests. It is worth nothing.
/// @notice A run on a real chain names a plain ERC-20 that exists already.
contract TestToken is ERC20 {
    constructor(address to, uint256 supply) ERC20("Sparehive Test Token", "SPARE-TEST") {
        _mint(to, supply);
    }
}
